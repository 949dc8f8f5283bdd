"""minillama: the LLaMA family in NumPy, with hand-written backward passes and Numba kernels."""

from .config import Config
from .model import Model
from .ops.loss import IGNORED
from .presets import PRESETS

__all__ = ["IGNORED", "PRESETS", "Config", "Model", "load"]
__version__ = "0.1.0"


def load(path, threads=None, dtype=None):
    """The model and the tokenizer of a folder that `Model.save` or `minillama train` wrote: (Model, tokenizer)

    The tokenizer is None where the folder has no tokenizer.json. A checkpoint of bfloat16 or half precision keeps its
    bytes and does not train, unless dtype asks for "float32".
    """
    from pathlib import Path

    from .checkpoint.huggingface import load as load_model
    from .tokenizers import load_tokenizer

    model = load_model(path, threads, dtype)
    has_tokenizer = (Path(path) / "tokenizer.json").is_file()
    return model, load_tokenizer(path) if has_tokenizer else None
