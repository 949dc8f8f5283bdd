"""What must not lie in a folder that a model is to be written to."""

from pathlib import Path

# What a saved model consists of; not every model has all of them.
MODEL_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
    "chat_template.jinja",
)  # fmt: skip
# Of models in whatever format: beside a new config.json they would be taken for parts of it, or it for one of theirs.
_PATTERNS = (
    "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth", "*.gguf", "config.json", "generation_config.json",
    "params.json", "tokenizer.*", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*",
    "merges.txt", "chat_template.*",
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
