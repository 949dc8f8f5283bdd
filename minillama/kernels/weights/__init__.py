"""Rows of packed weights in compiled code: what `minillama.kernels.decoding` asks of each kind.

Compiled code has a matrix as the tuple of its arrays (minillama.ops.weights), and tells kinds by their dtypes. A kind's
file has ROWS, whose functions Numba compiles where they are called; matrices of a kind that has none are multiplied in
NumPy. Widened as a whole, they are operations: a file may have the kernels of `widen_KIND` too.
"""

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from numba.extending import overload


class Rows(NamedTuple):
    """What a file of this package has as ROWS: functions in plain Python, which do what those below say."""

    dtypes: tuple[tuple[str, ...], ...]  # of the arrays of a matrix, for each kind that the file is of
    block: Callable
    cut: Callable
    multiply: Callable
    read_row: Callable


@cache
def rows_of(dtypes):
    """The ROWS of the kind that has arrays of these dtypes, or None."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return next((module.ROWS for module in modules if hasattr(module, "ROWS") and dtypes in module.ROWS.dtypes), None)


def _of(matrix):
    return rows_of(tuple(str(array.dtype) for array in matrix.types))


def block(blocks, layer):
    """All matrices of one block, as they lie one after the other."""


def cut(rest, rows, columns):
    """The matrix (rows, columns) that `rest` begins with, and what follows it."""


def multiply(matrix, first, x, y, add):
    """y = matrix[first : first + len(y)] x, added to what y holds if `add`."""


def read_row(matrix, r, out):
    """out = row r of the matrix."""


@overload(block)
def _block(blocks, layer):
    return _of(blocks).block


@overload(cut)
def _cut(rest, rows, columns):
    return _of(rest).cut


@overload(multiply)
def _multiply(matrix, first, x, y, add):
    return _of(matrix).multiply


@overload(read_row)
def _read_row(matrix, r, out):
    return _of(matrix).read_row


def block_of_one(blocks, layer):
    """`block` of a kind with one array."""
    return (blocks[0][layer],)


def cut_of_one(rest, rows, columns):
    """`cut` of a kind with one array, which has a number for each weight."""
    return (rest[0][: rows * columns].reshape(rows, columns),), (rest[0][rows * columns :],)
