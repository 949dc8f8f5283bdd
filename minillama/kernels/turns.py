"""Turns: how threads share a piece of work that is cut into units, without a lock

Every thread runs through all turns. The units of a turn are taken from a counter, and the next turn begins when all are
finished; so nobody waits for a thread that has not begun, and one that comes late passes through finished turns.
`turns` is (2 * number of turns * LINE,) int64, all 0 before the first: of each turn the units that are taken, and those
that are finished.
"""

import sys

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .simd import JIT

LOOKS = 1000  # looks at a counter before a waiting thread offers its processor to others
LINE = 8  # int64 in a cache line: every counter has its own


@njit(**JIT)
def take(turns, turn):
    """The number of the next unit of a turn that nobody has taken; beyond the last one, a number that is too high."""
    return add(turns, 2 * turn * LINE, 1)


@njit(**JIT)
def finish(turns, turn, count):
    if count > 0:
        add(turns, (2 * turn + 1) * LINE, count)


@njit(**JIT)
def wait(turns, turn, units):
    """Return when `units` units of a turn are finished, and what they wrote can be read."""
    looks = 0
    while read(turns, (2 * turn + 1) * LINE) < units:
        looks += 1
        if looks > LOOKS:
            yield_processor()


@intrinsic
def add(typing_context, counters, index, number):
    """counters.flat[index] += number as one indivisible step; returns the value before."""

    def generate(context, builder, signature, args):
        place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.atomic_rmw("add", place, args[2], "acq_rel")

    return types.int64(counters, types.intp, types.int64), generate


@intrinsic
def read(typing_context, counters, index):
    """counters.flat[index], and with it all that was written before the value was."""

    def generate(context, builder, signature, args):
        place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def yield_processor(typing_context):
    """sched_yield of POSIX: where threads are more than processors, the one that is waited for can run."""

    def generate(context, builder, signature, args):
        if sys.platform != "win32":
            kind, known = ir.FunctionType(ir.IntType(32), []), builder.module.globals.get("sched_yield")
            builder.call(known or ir.Function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate
