"""The parts of a network, each forward with its backward below it: attention, feed-forward, blocks, heads.

    layer(op, config, p, x, ...) -> y, saved;   layer_backward(op, config, p, grad, dy, ..., saved) -> dx

(The feed-forward layer needs neither config nor shard.) `op` is the backend with the config's choices
(minillama.backend.active), `p` the parameters of a block and `grad` their gradients, by the same names
(minillama.parameters.views); `shard` knows which rows and heads a worker has (minillama.runtime.shards): read N as its
rows, and to_heads and to_rows as reshaping. What a forward keeps for its backward is the tuple that it returns last.
Activation gradients are returned, or for the residual stream updated in place; parameter gradients are added up. A
block also gets the dropout of the step, `noise`, and `site`, its place in the network, by which the dropped elements
differ from layer to layer. Letters: B batch, T time, N = B T rows, C model width, H heads, K key/value heads, D head
width, F feed-forward width, V vocabulary, L layers. minillama.layers.alone has a layer or a block without a model.
"""
