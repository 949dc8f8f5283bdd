"""Where arrays live: the flat store of parameters, the scratch arena of a training step, the cache of decoding.

Everything that a training step touches lies in a few large buffers that are made once. Parameters, gradients and the
two moments of AdamW are one flat buffer each, with named views (`Store`). Activations come from an `Arena`, a stack
that is emptied after every step, so that a steady step allocates nothing and meets the same addresses again.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register
BLOCK_POSITIONS = 128  # at most, in a block of the key/value cache
_FURTHER_BUFFER = 2**26  # bytes; the C library gives blocks above 2^25 back to the system as soon as they are free
_local = threading.local()


def aligned_zeros(size: int, dtype: DTypeLike) -> np.ndarray:
    """`size` zeros whose first one begins a cache line, as NumPy's own arrays seldom do: vectors then cross no line."""
    if size >= 2**60:  # NumPy says no more than that a dimension is too large, and not as a MemoryError
        raise MemoryError(f"{size:,} numbers in one array")
    raw = np.zeros(size * np.dtype(dtype).itemsize + _ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % _ALIGNMENT
    return raw[shift : raw.size - _ALIGNMENT + shift].view(dtype)


class Store(Mapping[str, np.ndarray]):
    """One flat buffer with a view for every name of a `{name: shape}` description.

    Matrices come first and vectors after them (each in the order of the description), so that `store.matrices` is the
    slice that weight decay applies to and `store.vectors` the rest, and the gradient norm, the reset to zero and the
    sum over workers are each one operation on `store.flat`.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32, flat: np.ndarray | None = None
    ) -> None:
        order = sorted(shapes, key=lambda name: len(shapes[name]) < 2)  # sorted() is stable
        size = sum(prod(shape) for shape in shapes.values())
        self.shapes = dict(shapes)
        self.flat = aligned_zeros(size, dtype) if flat is None else flat
        self._views, self._starts, start = {}, {}, 0
        for name in order:
            end = start + prod(shapes[name])
            self._views[name] = self.flat[start:end].reshape(shapes[name])
            self._starts[name] = start
            start = end
        first_vector = sum(prod(s) for s in shapes.values() if len(s) > 1)
        self.matrices, self.vectors = self.flat[:first_vector], self.flat[first_vector:]

    def __reduce__(self):  # a copy has one buffer too; views that are copied one by one would each be an array
        return type(self), (self.shapes, self.flat.dtype), self.flat

    def __setstate__(self, flat):
        self.flat[:] = flat

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def fused(self, names: Sequence[str]) -> np.ndarray:
        """One view over matrices, or vectors, that lie side by side: w_q, w_k, w_v as one (sum of rows, columns)"""
        first = start = self._starts[names[0]]
        columns = self.shapes[names[0]][1:]
        for name in names:
            assert self._starts[name] == start and self.shapes[name][1:] == columns, f"{name} is not adjacent"
            start += prod(self.shapes[name])
        return self.flat[first:start].reshape(-1, *columns)


class Arena:
    """A stack of scratch memory: `empty` takes from the top, leaving a frame gives back what was taken since.

    The first time through a step the stack is too small. What does not fit comes from further buffers, large enough
    that the system takes them back whole, and the next time that the stack stands empty one buffer of the right size
    replaces them all. From then on the same sequence of requests gets the same addresses and nothing is allocated. An
    array from an arena is valid until its frame ends.
    """

    def __init__(self):
        self._buffers = [np.empty(0, np.uint8)]
        self._used = self._peak = 0  # bytes of all that is taken
        self._top = 0, 0  # the buffer that is taken from, and the first free byte in it

    @property
    def nbytes(self):
        """The size of the buffers, in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        size = -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        self._used += size
        if self._used > self._peak:
            self._peak = self._used
        number, start = self._top
        while start + size > self._buffers[number].nbytes:
            number, start = number + 1, 0
            if number == len(self._buffers):
                self._buffers.append(aligned_zeros(max(size, _FURTHER_BUFFER), np.uint8))
        self._top = number, start + size
        return np.ndarray(shape, dtype, self._buffers[number], start)

    def mark(self):
        """Where the stack stands."""
        return self._used, self._top

    def give_back(self, mark):
        """Let the stack stand where it stood at the mark."""
        self._used, self._top = mark

    @contextmanager
    def active(self):
        """Inside this block, `empty` on this thread takes from this arena."""
        if self._used == 0 and self._peak > self._buffers[0].nbytes:
            self._buffers.clear()  # first, so that there is never memory for both
            self._buffers.append(aligned_zeros(self._peak, np.uint8))
        outer = getattr(_local, "arena", None)
        _local.arena = self
        mark = self.mark()
        try:
            yield self
        finally:
            self.give_back(mark)
            _local.arena = outer


def empty(shape, dtype):
    """An uninitialised array from this thread's arena, or from NumPy where no arena is active."""
    arena = getattr(_local, "arena", None)
    return np.empty(shape, dtype) if arena is None else arena.empty(shape, dtype)


@contextmanager
def frame():
    """What is taken from this thread's arena inside the block is given back at its end."""
    arena = getattr(_local, "arena", None)
    if arena is None:
        yield
        return
    mark = arena.mark()
    try:
        yield
    finally:
        arena.give_back(mark)


class KVCache:
    """The keys and values of the positions that a model has read: keys, values (L, B, K, blocks, D, P)

    The context is cut into blocks of P positions. Inside a block the positions of a coordinate lie side by side, so
    that a query of any head width meets them in the lanes of vector registers, and a block is read from first to last.
    Bytes: 2 L K D times the item size for each position that there is room for (default: config.context) and each
    sequence; grouped heads (K < H) save the factor H / K.
    """

    def __init__(self, config: Any, batch_size: int, dtype: DTypeLike = np.float32, room: int | None = None) -> None:
        self.room = config.context if room is None else room
        blocks = -(-self.room // BLOCK_POSITIONS)
        positions = -(-self.room // blocks)
        shape = (config.layers, batch_size, config.kv_heads, blocks, config.head_dim, positions)
        self.keys, self.values = np.empty(shape, dtype), np.empty(shape, dtype)
        self.length = 0  # positions that every layer has stored; the model moves it on after a forward

    def layer(self, i):
        """The cache of layer i, as attention sees it: `append(k, v)` gives all keys and values so far."""
        return _LayerCache(self.keys[i], self.values[i], self.length)


class _LayerCache:
    def __init__(self, keys, values, length):
        self.keys, self.values, self.length = keys, values, length

    def append(self, k, v, sequences=slice(None), heads=slice(None)):
        """k, v (B, T, K, D) of the next T positions -> keys, values (B, length + T, K, D), copies; for some sequences
        and heads of the cache, or for all."""
        keys, values = self.keys[sequences, heads], self.values[sequences, heads]
        end = self.length + k.shape[1]
        block, place = np.divmod(np.arange(self.length, end), keys.shape[-1])
        for stored, new in ((keys, k), (values, v)):
            stored[:, :, block, :, place] = new.swapaxes(0, 1)
        if self.length == 0:
            return k, v
        return self._read(keys, end), self._read(values, end)

    @staticmethod
    def _read(stored, end):
        B, K, _, D, P = stored.shape
        used = stored[:, :, : -(-end // P)].transpose(0, 2, 4, 1, 3)  # (B, blocks, P, K, D)
        return used.reshape(B, -1, K, D)[:, :end]
