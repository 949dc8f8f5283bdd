"""The parts of a network, each forward with its backward below it: embeddings, attention, feed-forward, blocks, heads.

    layer_parameters(config) -> the named tuple of the layer's weights, declared (minillama.layers.declare)
    layer(op, config, p, x, ...) -> y, saved;   layer_backward(op, config, p, grad, dy, ..., saved) -> dx

(The feed-forward layer needs neither config nor shard.) `op` is the backend with the config's choices
(minillama.backend.active), `p` the layer's weights and `grad` their gradients, in the same named tuple; `shard` knows
which rows and heads a worker has (minillama.runtime.shards): read N as its rows, and to_heads and to_rows as reshaping.
What a forward keeps for its backward is what it returns last. Activation gradients are returned, or for the residual
stream updated in place; parameter gradients are added up. A block also gets the dropout of the step, `noise`, and
`site`, its place in the network, by which the dropped elements differ from layer to layer. Letters: B batch, T time,
N = B T rows, C model width, H heads, K key/value heads, D head width, F feed-forward width, V vocabulary, L layers.

Workers may share a gradient. Where a batch is cut inside of a sequence, all workers run through the same layers, each
with its rows, and add to the same gradients of matrices one after the other, in the order of their numbers, so that the
sums are the same every time. Hence the rule for a layer, and for an operation that it calls:

    every worker adds to the same gradients, equally often and in the same order, and meets the others (to_heads,
    to_rows) equally often, whatever its rows hold; one that has nothing to add adds zeros

An expert to which no row of this worker is sent is the example: op.linear_backward with no rows adds zeros, and to
leave it out would let the others wait for ever. RuntimeError says where the ways part, by the names of the parameters.
A shared gradient knows `+=`, slices of its rows and its length, and cannot be read; what adds in another way takes its
turn itself: `with shard.turn(names)`, as the embedding does. Gradients of vectors (norms, biases) are a worker's own.

minillama.LayerAlone is a layer or a block without a model.
"""
