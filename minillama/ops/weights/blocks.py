"""Weights in blocks, as GGUF files keep them: 32 or 256 neighbours of a row share a scale, and some a minimum.

A matrix is raw (R, B, N): rows, blocks of a row, the bytes of a block, uint8. widen_TYPE(raw) -> float32 (R, B, weights
of a block), exactly what the bytes stand for; pack_TYPE(weights float32 (R, B, 32)) -> raw. d, m and dmin are half
precision and begin or end a block; all sums and products are of float32 numbers.

    Q8_0   w = d q                     q int8
    Q4_0   w = d (q - 8)               q of 4 bits: the low halves of 16 bytes are weights 0 to 15, the high 16 to 31
    Q4_1   w = d q + m                 the same
    Q5_0   w = d (q - 16)              q of 5 bits, the fifth bits of all 32 in 4 bytes
    Q5_1   w = d q + m                 the same
    Q4_K   w = d s_j q - dmin m_j      256 weights in 8 groups j of 32, s_j and m_j of 6 bits, q of 4
    Q5_K   the same                    q of 5 bits
    Q6_K   w = d s_j (q - 32)          256 weights in 16 groups j of 16, s_j int8, q of 6 bits

Source: ggml-quants.c and ggml-common.h of github.com/ggml-org/llama.cpp; BLOCKS has their numbers in a file.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .halves import finite, pack_bfloat16, pack_float16, widen_bfloat16, widen_float16

_HALF = np.dtype("<f2")


def _halves(raw, at):
    """The half-precision number that begins at a byte of each block, float32 (R, B, 1)."""
    return np.ascontiguousarray(raw[..., at : at + 2]).view(_HALF).astype(np.float32)


def _nibbles(raw):
    """Bytes (..., N) -> their low halves, then their high ones, (..., 2 N)"""
    return np.concatenate([raw & 15, raw >> 4], axis=-1)


def _bits(raw):
    """Bytes (..., N) -> bits (..., 8 N), of each byte the lowest first"""
    return np.unpackbits(raw, axis=-1, bitorder="little")


def _floats(raw, dtype):
    return np.ascontiguousarray(raw).view(dtype)


def widen_f32(raw):
    return _floats(raw, "<f4").astype(np.float32)


def pack_f32(weights):
    return _bytes(weights.astype("<f4"))


def widen_f16(raw):
    return widen_float16(_floats(raw, "<i2"))


def pack_f16(weights):
    return _bytes(pack_float16(weights)[0].astype("<i2"))


def widen_bf16(raw):
    return widen_bfloat16(_floats(raw, "<u2"))


def pack_bf16(weights):
    return _bytes(pack_bfloat16(weights)[0].astype("<u2"))


def widen_q8_0(raw):
    return _halves(raw, 0) * raw[..., 2:].view(np.int8).astype(np.float32)


def pack_q8_0(weights):
    """d = max |w| / 127,   q = w / d to the nearest whole number, halves away from 0"""
    d = np.abs(finite(weights)).max(axis=-1, keepdims=True) / np.float32(127)
    q = _round(weights * _inverse(d)).astype(np.int8)
    return np.concatenate([_half_bytes(d), q.view(np.uint8)], axis=-1)


def widen_q4_0(raw):
    return _halves(raw, 0) * (_nibbles(raw[..., 2:]).astype(np.float32) - 8)


def pack_q4_0(weights):
    """d = w* / -8 with w* the weight of the largest magnitude, whose q is 0;   q = floor(w / d + 8.5), at most 15"""
    largest = np.abs(finite(weights)).argmax(axis=-1, keepdims=True)
    d = np.take_along_axis(weights, largest, axis=-1) / np.float32(-8)
    q = np.floor(weights.astype(np.float64) * _inverse(d) + 8.5).clip(0, 15).astype(np.uint8)
    return np.concatenate([_half_bytes(d), q[..., :16] | q[..., 16:] << 4], axis=-1)


def widen_q4_1(raw):
    return _halves(raw, 0) * _nibbles(raw[..., 4:]).astype(np.float32) + _halves(raw, 2)


def widen_q5_0(raw):
    q = _nibbles(raw[..., 6:]) | _bits(raw[..., 2:6]) << 4
    return _halves(raw, 0) * (q.astype(np.float32) - 16)


def widen_q5_1(raw):
    q = _nibbles(raw[..., 8:]) | _bits(raw[..., 4:8]) << 4
    return _halves(raw, 0) * q.astype(np.float32) + _halves(raw, 2)


def _scales_and_minima(raw):
    """Twelve bytes of a block -> eight numbers of six bits, scales, and eight more, minima: uint8 (R, B, 8) each

    The first four scales are the low six bits of bytes 0 to 3, the first four minima of bytes 4 to 7. The last four
    have their low four bits in the halves of bytes 8 to 11, and their high two in the bits that the others have left.
    """
    first, second, third = raw[..., 0:4], raw[..., 4:8], raw[..., 8:12]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    return scales, minima


def _k_weights(raw, q):
    """d s_j q - dmin m_j: raw begins with d, dmin and twelve bytes of s and m; q (R, B, 8, 32)"""
    scales, minima = _scales_and_minima(raw[..., 4:16])
    slope, shift = _halves(raw, 0) * scales.astype(np.float32), _halves(raw, 2) * minima.astype(np.float32)
    return (slope[..., None] * q.astype(np.float32) - shift[..., None]).reshape(*raw.shape[:-1], 256)


def _in_groups(raw, groups):
    """Bytes (R, B, N) of 4-bit numbers -> (R, B, groups, 2, N / groups): of each group the low halves, then the high"""
    parts = raw.reshape(*raw.shape[:-1], groups, 1, -1)
    return np.concatenate([parts & 15, parts >> 4], axis=-2)


def widen_q4_k(raw):
    return _k_weights(raw, _in_groups(raw[..., 16:], 4).reshape(*raw.shape[:-1], 8, 32))


def widen_q5_k(raw):
    low = _in_groups(raw[..., 48:], 4).reshape(*raw.shape[:-1], 8, 32)
    shifts = np.arange(8, dtype=np.uint8)[:, None]
    high = raw[..., None, 16:48] >> shifts & 1
    return _k_weights(raw, low | high << 4)


def widen_q6_k(raw):
    low = raw[..., :128].reshape(*raw.shape[:-1], 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=-2).reshape(*raw.shape[:-1], 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = raw[..., 128:192].reshape(*raw.shape[:-1], 2, 1, 32) >> shifts & 3
    q = (low | high << 4).astype(np.float32) - 32
    slope = _halves(raw, 208) * raw[..., 192:208].view(np.int8).astype(np.float32)
    return (slope[..., None] * q.reshape(*raw.shape[:-1], 16, 16)).reshape(*raw.shape[:-1], 256)


def _round(values):
    """To the nearest whole number, halves away from 0, as C's roundf."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def _inverse(d):
    with np.errstate(divide="ignore"):
        return np.where(d == 0, np.float32(0), 1 / d)


def _bytes(array):
    return np.ascontiguousarray(array).view(np.uint8)


def _half_bytes(d):
    with np.errstate(over="ignore"):
        return _bytes(finite(d.astype(_HALF)))


class BlockType(NamedTuple):
    """A row of BLOCKS."""

    number: int  # of the type in a GGUF file
    weights: int  # of a block
    nbytes: int  # of a block
    widen: Callable
    pack: Callable | None = None  # None: such blocks are read only

    def row_bytes(self, columns):
        """The size of a row of so many weights, which must be whole blocks."""
        return columns // self.weights * self.nbytes


BLOCKS = {
    "F32": BlockType(0, 1, 4, widen_f32, pack_f32),
    "F16": BlockType(1, 1, 2, widen_f16, pack_f16),
    "BF16": BlockType(30, 1, 2, widen_bf16, pack_bf16),
    "Q4_0": BlockType(2, 32, 18, widen_q4_0, pack_q4_0),
    "Q4_1": BlockType(3, 32, 20, widen_q4_1),
    "Q5_0": BlockType(6, 32, 22, widen_q5_0),
    "Q5_1": BlockType(7, 32, 24, widen_q5_1),
    "Q8_0": BlockType(8, 32, 34, widen_q8_0, pack_q8_0),
    "Q4_K": BlockType(12, 256, 144, widen_q4_k),
    "Q5_K": BlockType(13, 256, 176, widen_q5_k),
    "Q6_K": BlockType(14, 256, 210, widen_q6_k),
}
