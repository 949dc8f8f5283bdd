"""Weights that are kept in fewer bytes than they are computed with, back as float32."""

import numpy as np

GROUP = 64  # int8 weights of a row that share a scale; the last group may be shorter


def widen_bfloat16(raw):
    """raw (R, C) uint16, the upper halves of float32 numbers -> those numbers (R, C), exactly

    Source: the format of Wang and Kanwar 2019, "BFloat16: The secret to high performance on Cloud TPUs".
    """
    return (raw.astype(np.uint32) << 16).view(np.float32)


def widen_float16(raw):
    """raw (R, C) int16, the bits of IEEE 754 half-precision numbers, all finite -> float32 (R, C), exactly"""
    return raw.view(np.float16).astype(np.float32)


def widen_int8(q, scales):
    """w = scale q: q int8 (R, C), scales float32 (R, ceil(C / GROUP)) -> float32 (R, C)"""
    return q * np.repeat(scales, GROUP, axis=1)[:, : q.shape[1]]
