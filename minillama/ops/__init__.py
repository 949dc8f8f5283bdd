"""The mathematics, in NumPy: the specification of every operation, each forward directly above its backward.

Dimension letters, here and everywhere: B batch, T time, N = B T rows, C model width, H query heads, K key/value heads,
D head width, F feed-forward width, V vocabulary, L layers. Gradients of activations are returned; gradients of
parameters are added to the array that is passed for them, so tied weights, micro-batches and shards need no special
case. `minillama.kernels` holds the same functions again as compiled schedules.

The gradient of a matrix may be one that several workers share and add to in turn (minillama.layers has the rule). An
operation adds to it by `dweight += ...`, or to slices of its rows by `part = dweight[rows]; part += ...`: as often, and
in the same order, whatever numbers it is given, also where it is given no rows. It does not read it.
"""
