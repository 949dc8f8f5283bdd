"""The models by name: LLaMA and its relatives as they were published, and small ones that train on a laptop."""

from typing import Any

from ..config import BIASES, Config, ffn_width
from .sizes import match_parameters, parameter_count

# What GPT-2 and BERT choose where LLaMA chooses otherwise. Dropout belongs to a training, and is left at 0.
# Sources: Radford et al. 2019 (GPT-2) and github.com/openai/gpt-2; Devlin et al. 2018 (BERT, arXiv 1810.04805) and
# github.com/google-research/bert.
GPT2: dict[str, Any] = {
    "norm": "layernorm",
    "position": "learned",
    "feed_forward": "gelu_tanh",
    "bias": ("qkv", "o", "ffn", "norm"),
    "tied": True,
}
BERT: dict[str, Any] = {
    "norm": "layernorm",
    "norm_eps": 1e-12,
    "placement": "post",
    "position": "learned",
    "feed_forward": "gelu",
    "mask": "bidirectional",
    "head": "masked_lm",
    "bias": BIASES,
    "embedding_norm": True,
    "token_types": 2,
    "tied": True,
}

# The choices of each family, as changes to the defaults of Config.
FAMILIES: dict[str, dict[str, Any]] = {"llama": {}, "gpt2": GPT2, "bert": BERT}


def _llama(
    vocab_size: int, context: int, dim: int, layers: int, heads: int, kv_heads: int, ffn: int, **rest: Any
) -> Config:
    return Config(vocab_size, dim, layers, heads, kv_heads, ffn, context, **rest)


def _llama_3(
    context: int, dim: int, layers: int, heads: int, ffn: int, factor: float | None = None, **rest: Any
) -> Config:
    """Llama 3 with its context of 8K; with a factor 3.1 or 3.2, whose slow rotations are slowed by it."""
    if factor is not None:
        rest |= {"rope_scaling": "llama3", "rope_factor": factor, "rope_original_context": 8192}
    return _llama(128256, context, dim, layers, heads, 8, ffn, rope_theta=5e5, **rest)


def _gpt(context: int, dim: int, layers: int, heads: int) -> Config:
    return Config(50257, dim, layers, heads, context=context, **GPT2)


def _bert(dim: int, layers: int, heads: int) -> Config:
    return Config(30522, dim, layers, heads, context=512, **BERT)


def tiny(family: str, vocab_size: int = 1024, context: int = 256, **rest: Any) -> Config:
    """A model of the family "llama", "gpt2" or "bert" that trains on a laptop; rest: fields of Config

    LLaMA has 0.79 million parameters and 128 for each token of the vocabulary; the others have as many, to half a
    column of the feed-forward, 0.07 %. The output matrix is the embedding matrix in all of them, and the width of the
    feed-forward makes up for the rest. LLaMA's is 8/3 dim, 344 for each of three matrices. GPT-2's two would hold as
    much with 516; its biases and learned positions leave 479 at the default vocabulary and context, and the head
    leaves BERT 461.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}; received {family!r}")
    size: dict[str, Any] = {
        "vocab_size": vocab_size,
        "dim": 128,
        "layers": 4,
        "heads": 4,
        "context": context,
        "tied": True,
    }
    return match_parameters(Config(**{**size, **FAMILIES[family], **rest}), parameter_count(Config(**size))["total"])


# Sources of the shapes: the papers and model cards that minillama.catalogue.stated names, and for GPT-2 and BERT the
# configurations in their repositories; CodeLlama 13B and its vocabulary: litgpt's configurations
# (github.com/Lightning-AI/litgpt). norm_eps of LLaMA 1: 1e-6; for its 65B the published configurations disagree, 1e-6
# or 1e-5.
PRESETS: dict[str, Config] = {
    "llama-7b": _llama(32000, 2048, 4096, 32, 32, 32, ffn_width(4096, 256), norm_eps=1e-6),
    "llama-13b": _llama(32000, 2048, 5120, 40, 40, 40, ffn_width(5120, 256), norm_eps=1e-6),
    "llama-33b": _llama(32000, 2048, 6656, 60, 52, 52, ffn_width(6656, 256), norm_eps=1e-6),
    "llama-65b": _llama(32000, 2048, 8192, 80, 64, 64, ffn_width(8192, 256)),
    "llama-2-7b": _llama(32000, 4096, 4096, 32, 32, 32, ffn_width(4096, 256)),
    "llama-2-13b": _llama(32000, 4096, 5120, 40, 40, 40, ffn_width(5120, 256)),
    "llama-2-70b": _llama(32000, 4096, 8192, 80, 64, 8, ffn_width(8192, 4096, 1.3)),
    "llama-3-8b": _llama_3(8192, 4096, 32, 32, ffn_width(4096, 1024, 1.3)),
    "llama-3-70b": _llama_3(8192, 8192, 80, 64, ffn_width(8192, 4096, 1.3)),
    "llama-3.1-8b": _llama_3(131072, 4096, 32, 32, ffn_width(4096, 1024, 1.3), factor=8),
    "llama-3.1-70b": _llama_3(131072, 8192, 80, 64, ffn_width(8192, 4096, 1.3), factor=8),
    "llama-3.1-405b": _llama_3(131072, 16384, 126, 128, ffn_width(16384, 4096, 1.2), factor=8),
    "llama-3.2-1b": _llama_3(131072, 2048, 16, 32, ffn_width(2048, 256, 1.5), factor=32, tied=True),
    "llama-3.2-3b": _llama_3(131072, 3072, 28, 24, ffn_width(3072, 256), factor=32, tied=True),
    "codellama-7b": _llama(32016, 16384, 4096, 32, 32, 32, ffn_width(4096, 256), rope_theta=1e6),
    "codellama-13b": _llama(32016, 16384, 5120, 40, 40, 40, ffn_width(5120, 256), rope_theta=1e6),
    "codellama-34b": _llama(32000, 16384, 8192, 48, 64, 8, ffn_width(8192, 256), rope_theta=1e6),
    "codellama-70b": _llama(32016, 16384, 8192, 80, 64, 8, ffn_width(8192, 4096, 1.3), rope_theta=1e6),
    "gpt2-small": _gpt(1024, 768, 12, 12),
    "gpt2-medium": _gpt(1024, 1024, 24, 16),
    "gpt2-large": _gpt(1024, 1280, 36, 20),
    "gpt2-xl": _gpt(1024, 1600, 48, 25),
    "gpt3-175b": _gpt(2048, 12288, 96, 96),
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    **{f"tiny-{family}": tiny(family) for family in FAMILIES},
}
