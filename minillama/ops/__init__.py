"""The mathematics, in NumPy: the specification of every operation, each forward directly above its backward.

Dimension letters, here and everywhere: B batch, T time, N = B T rows, C model width, H query heads, K key/value heads,
D head width, F feed-forward width, V vocabulary, L layers. Gradients of activations are returned; gradients of
parameters are added to the array that is passed for them, so tied weights, micro-batches and shards need no special
case. `minillama.kernels` holds the same functions again as compiled schedules.

The gradient of a matrix may be one that several workers share and add to in turn (minillama.layers has the rule). An
operation adds to it by `dweight += ...`, or to slices of its rows by `part = dweight[rows]; part += ...`: as often, and
in the same order, whatever numbers it is given, also where it is given no rows. It does not read it.

A shape such as (N, C) is what models pass, and what a kernel takes. Here the rows N may be any axes in front of the
last one, or none: x (B, T, C) -> y (B, T, C). What a docstring gives as (N,) then has these axes, too. All operations
by name, as NumPy computes them:

    op = minillama.backend.load("numpy")
    y, inverse_rms = op.rmsnorm(x, weight, 1e-5)
"""
