"""Makers of contestants for test_bench; they are imported in the contestants' own processes."""

import os
import time

import numpy as np


def warm_up():
    pass


def sleeper(seconds):
    return {"sleep": lambda: time.sleep(seconds)}


def failing():
    raise RuntimeError("no compiler\nin many lines")


def dying_later():
    steps = []

    def step():
        steps.append(1)
        if len(steps) > 1:
            os._exit(3)

    return {"step": step}


def hungry(megabytes):
    kept = np.ones(megabytes * 125_000)
    return {"step": lambda: 2 * kept}
