"""bfloat16 and half precision: two bytes a weight, as published checkpoints have them."""

import numpy as np


def layout_bfloat16(columns):
    return {"bits": (np.uint16, columns)}


def pack_bfloat16(weight):
    """The nearest bfloat16 of each weight (R, C), of two equally near ones the even: the upper half of its float32."""
    bits = finite(weight).astype(np.float32).view(np.uint32)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16),)


def widen_bfloat16(raw):
    """raw (R, C) uint16, the upper halves of float32 numbers -> those numbers (R, C), exactly

    Source: the format of Wang and Kanwar 2019, "BFloat16: The secret to high performance on Cloud TPUs".
    """
    return (raw.astype(np.uint32) << 16).view(np.float32)


def layout_float16(columns):
    return {"bits": (np.int16, columns)}


def pack_float16(weight):
    """The nearest half-precision number of each weight (R, C); beyond 65,504 there is none."""
    with np.errstate(over="ignore"):
        return (finite(finite(weight).astype(np.float16)).view(np.int16),)


def widen_float16(raw):
    """raw (R, C) int16, the bits of IEEE 754 half-precision numbers, all finite -> float32 (R, C), exactly"""
    return raw.view(np.float16).astype(np.float32)


def finite(weight):
    """The weights; ValueError where one is infinite or no number."""
    if not np.isfinite(weight).all():
        raise ValueError(
            "the weights are not all finite, or too large for half precision, which ends at 65,504: this model is "
            "damaged, its training diverged, or it needs bfloat16"
        )
    return weight
