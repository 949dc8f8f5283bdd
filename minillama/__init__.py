"""minillama: the LLaMA family in NumPy, with hand-written backward passes and Numba kernels."""

from .catalogue.presets import PRESETS
from .config import Config
from .model import Model
from .ops.loss import IGNORED

__all__ = ["IGNORED", "PRESETS", "Config", "Model", "load"]
__version__ = "0.2.0"


def load(path, threads=None, dtype=None):
    """The model and the tokenizer of what lies at a path: (Model, tokenizer)

    path: a folder that `Model.save` or `minillama train` wrote, or another Hugging Face folder; a folder in Meta's
    layout; a file of llama2.c. The tokenizer is None where there is none in the folder or beside the file. A checkpoint
    of bfloat16 or half precision keeps its bytes and does not train, unless dtype asks for "float32".
    """
    from .checkpoint.open import load as load_model
    from .checkpoint.open import load_tokenizer

    model = load_model(path, threads, dtype)
    return model, load_tokenizer(path, model.config.vocab_size)
