"""The names that the files of models usually have: what is written, what is downloaded, what must not be mixed up.

What a file is, its content says (minillama.checkpoint.contents); these names say what to look for, and what to leave
alone.
"""

from pathlib import Path

# What a saved model consists of; not every model has all of them.
MODEL_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    "chat_template.jinja",
)  # fmt: skip
# Of a tokenizer, in whatever format.
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"
# Of a model on Hugging Face, besides its weights: what is needed to open it here.
DOWNLOADED = ("config.json", "generation_config.json", _INDEX, *_TOKENIZERS, "chat_template.jinja")
# Of models in whatever format, besides their weights.
TEXTS_OF_MODELS = (*DOWNLOADED, "params.json", "pytorch_model.bin.index.json")
# Of models in whatever format: beside a new config.json they would be taken for parts of it, or it for one of theirs.
_PATTERNS = (
    *TEXTS_OF_MODELS, "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.gguf", "tokenizer.*", "vocab.*",
    "chat_template.*",
)  # fmt: skip


def require_no_other_model(folder, own, instead):
    """FileExistsError where the folder holds files of a model other than those named `own`, which nothing replaces."""
    folder = Path(folder)
    others = sorted({path.name for pattern in _PATTERNS for path in folder.glob(pattern)} - set(own))
    if others:
        names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise FileExistsError(
            f"{folder} holds {names}, which belong to another model and would be mixed up with this one; nothing was "
            f"changed. {instead[0].upper()}{instead[1:]}"
        )
