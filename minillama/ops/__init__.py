"""The mathematics, in NumPy: the specification of every operation, each forward directly above its backward.

Dimension letters, here and everywhere: B batch, T time, N = B T rows, C model width, H query heads, K key/value heads,
D head width, F feed-forward width, V vocabulary, L layers. Gradients of activations are returned; gradients of
parameters are added to the array that is passed for them, so tied weights, micro-batches and shards need no special
case. `minillama.kernels` holds the same functions again as compiled schedules.
"""
