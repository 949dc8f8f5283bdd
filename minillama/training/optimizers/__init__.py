"""The optimizers that a model can be trained with. A new one is a file here and a row in the table.

Each is a class below `Optimizer`, whose docstring says what it has to have.
"""

from .adam import Adam
from .adamw import AdamW
from .base import Optimizer
from .sgd import SGD

__all__ = ["OPTIMIZERS", "Adam", "AdamW", "Optimizer", "SGD"]

OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
