"""stub until positions land"""
from typing import NamedTuple


class RopeScaling(NamedTuple):
    by_length: bool = False


ROPE_SCALINGS = {"none": RopeScaling()}
