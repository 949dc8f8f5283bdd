"""How a row of a matrix is kept in fewer bytes than it is computed with: a file a kind, or two that are alike.

layout_KIND(columns) -> {array: (dtype, numbers)} of what is kept of a row of so many weights
pack_KIND(weight) -> these arrays (R, numbers) of a matrix (R, C) of floats; ValueError for one that they cannot hold
widen_KIND(*arrays) -> the weights that they stand for, float32 (R, C), or more columns where a row was filled up

A matrix is multiplied as y = x widen_KIND(*arrays)^T (`linear`, a part of its rows at a time), and widening is the
inverse of packing but for its rounding. No two kinds may have arrays of the same dtypes, by which compiled code
tells them apart. The table of the kinds is minillama.weights.WEIGHT_KINDS.
"""
