"""Rows of float32 and float64."""

from . import Rows, block_of_one, cut_of_one


def _multiply(matrix, first, x, y, add):
    for i in range(len(y)):
        row, total = matrix[0][first + i], x.dtype.type(0)
        for c in range(len(x)):
            total += row[c] * x[c]
        y[i] = y[i] + total if add else total


def _read_row(matrix, r, out):
    out[:] = matrix[0][r]


ROWS = Rows((("float32",), ("float64",)), block_of_one, cut_of_one, _multiply, _read_row)
