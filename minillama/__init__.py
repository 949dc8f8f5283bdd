"""minillama: the LLaMA family in NumPy, with hand-written backward passes and Numba kernels."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from .analysis.layer_alone import LayerAlone
    from .catalogue.presets import PRESETS
    from .config import Config
    from .model import Model
    from .ops.loss import IGNORED
    from .tokenizers import Tokenizer

__all__ = ["IGNORED", "PRESETS", "Config", "LayerAlone", "Model", "load", "save"]
__version__ = "0.2.0"

# Where the names are that are imported when they are first asked for: `minillama --help` waits for none of them.
_MODULES = {
    "IGNORED": ".ops.loss",
    "PRESETS": ".catalogue.presets",
    "Config": ".config",
    "LayerAlone": ".analysis.layer_alone",
    "Model": ".model",
}


def __getattr__(name: str) -> Any:
    """A name of _MODULES, or a module of the package; Python asks here for what it does not find above and below."""
    if name in _MODULES:
        found = getattr(import_module(_MODULES[name], __name__), name)
    elif name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        found = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found  # so that the next time it is found at once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    path: str | os.PathLike, threads: int | None = None, dtype: "DTypeLike | None" = None
) -> tuple["Model", "Tokenizer | None"]:
    """The model and the tokenizer of what lies at a path: (Model, tokenizer)

    path: a folder that `save` or `minillama train` wrote, or another Hugging Face folder; a folder in Meta's
    layout; a file of llama2.c, or a folder with one. What is in the files says which, not their names. The tokenizer is
    None where there is none in the folder or beside the file. A checkpoint of bfloat16 or half precision keeps its
    bytes and does not train, unless dtype asks for "float32".
    """
    from .checkpoint.open import load as load_model
    from .checkpoint.open import load_tokenizer

    model = load_model(path, threads, dtype)
    return model, load_tokenizer(path, model.config.vocab_size)


def save(model: "Model", path: str | os.PathLike, tokenizer: "Tokenizer | None" = None) -> None:
    """Write a Hugging Face directory: config.json, model.safetensors and, with a tokenizer, tokenizer.json

    transformers opens it where it has the architecture (minillama.checkpoint); `load` opens every one. TypeError for
    weights that follow from others, as int8 ones do, and are not saved.
    """
    from .checkpoint.huggingface import save as write

    write(path, model, tokenizer)
