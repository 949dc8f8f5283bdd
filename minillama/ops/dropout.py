"""Dropout whose mask is a function of a key and of each element's place, not of a generator's state.

The mask of the backward is computed again instead of being kept, and it does not depend on how a batch is cut into
shards: threads and their number change nothing.
"""

import numpy as np


def dropout(x, rate, key, first_row=0):
    """y = x / (1 - rate) with probability 1 - rate, else 0. The gradient of dropout is dropout with the same key.

    x (N, C), rate in [0, 1), key an integer below 2^32, first_row the row of the whole batch that x starts at
    -> y (N, C); x itself when rate is 0. Source: Srivastava et al. 2014.
    """
    if rate == 0:
        return x
    first = first_row * x.shape[-1]
    place = np.arange(first, first + x.size, dtype=np.uint32)
    kept = hash32(hash32(place) + np.uint32(key)) >= np.uint32(rate * 2**32)
    return np.where(kept.reshape(x.shape), x * x.dtype.type(1 / (1 - rate)), x.dtype.type(0))


def hash32(value):
    """Three rounds of xor-shift and multiply: every input bit flips every output bit about half of the time.

    value uint32 -> uint32. Source: the triple32 mixing function of C. Wellons' hash-prospector, constants included.
    """
    # np.uint32(...) around each product: Numba multiplies in 64 bits, and this function is compiled too
    value = value ^ (value >> np.uint32(17))
    value = np.uint32(value * np.uint32(0xED5AD4BB))
    value = value ^ (value >> np.uint32(11))
    value = np.uint32(value * np.uint32(0xAC4C1B51))
    value = value ^ (value >> np.uint32(15))
    value = np.uint32(value * np.uint32(0x31848BAB))
    return value ^ (value >> np.uint32(14))
