"""What a model is: its shape and its choices, and nothing about how it is trained."""

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from math import isfinite
from numbers import Integral, Real

from .ops.positions.rope import ROPE_LAYOUTS


@dataclass(frozen=True)
class Config:
    """The shape of a LLaMA. Every field is checked; an error says what was received and what is possible."""

    vocab_size: int
    dim: int = 128  # C, width of the residual stream
    layers: int = 4
    heads: int = 4  # query heads; their width is dim / heads
    kv_heads: int | None = None  # key/value heads, shared by groups of query heads; None: one for each query head
    ffn: int | None = None  # F, width of the feed-forward layer; None: LLaMA's rule, ffn_width(dim)
    context: int = 256  # longest sequence, in tokens
    norm_eps: float = 1e-5  # inside the square root of RMSNorm
    rope_theta: float = 10000.0  # base of the rotary frequencies; a larger one turns more slowly
    rope_layout: str = "rotate_half"  # or "interleaved": which coordinates form a pair
    tied: bool = False  # the output matrix is the embedding matrix
    dropout: float = 0.0  # on the embedding and on what each layer adds to the residual stream, in training only

    def __post_init__(self):
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        for name in ("vocab_size", "dim", "layers", "heads", "kv_heads"):
            self._require_integer(name, 1)
        self._require_integer("context", 2)  # one token to read and one to predict
        if self.ffn is None:
            object.__setattr__(self, "ffn", ffn_width(self.dim))
        self._require_integer("ffn", 1)
        for name in ("norm_eps", "rope_theta", "dropout"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
                raise ValueError(f"{name} must be a finite number; received {value!r}")
        if not isinstance(self.tied, bool):
            raise ValueError(f"tied must be True or False; received {self.tied!r}")
        if self.dim % self.heads:
            raise ValueError(
                f"heads must divide dim, so that every head has the same width; received dim {self.dim} and heads "
                f"{self.heads}. Near values that work: {_near_divisors(self.dim, self.heads)}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"rotary embedding turns coordinates in pairs, so the head width dim / heads must be even; received "
                f"{self.dim} / {self.heads} = {self.head_dim}. Choose dim as a multiple of 2 * heads"
            )
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads must divide heads, so that every key/value head serves the same number of query heads; "
                f"received heads {self.heads} and kv_heads {self.kv_heads}. Near values that work: "
                f"{_near_divisors(self.heads, self.kv_heads)}"
            )
        if self.rope_layout not in ROPE_LAYOUTS:
            raise ValueError(f"rope_layout must be one of {', '.join(ROPE_LAYOUTS)}; received {self.rope_layout!r}")
        if not self.norm_eps >= 0:
            raise ValueError(f"norm_eps must not be negative; received {self.norm_eps}")
        if not self.rope_theta > 0:
            raise ValueError(f"rope_theta must be positive; received {self.rope_theta}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1; received {self.dropout}. 0 turns it off")

    def _require_integer(self, name, least):
        value = getattr(self, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}; received {value!r}")
        object.__setattr__(self, name, int(value))

    @property
    def head_dim(self):
        """D, the width of one head."""
        return self.dim // self.heads

    @classmethod
    def from_dict(cls, values):
        """The Config with these fields; an unknown name is an error that offers the nearest known one."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(known)}"
                raise ValueError(f"a Config has no field {name!r}{hint}")
        return cls(**values)

    def to_dict(self):
        """The fields and their values, for JSON."""
        return asdict(self)


def ffn_width(dim, multiple_of=8, multiplier=1.0):
    """LLaMA's width of the gated feed-forward: two thirds of 4 dim, times multiplier, rounded up to multiple_of.

    Three matrices of 2/3 * 4 dim hold as many parameters as the two of 4 dim that a feed-forward without a gate has.
    Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2; rounding and multiplier as in Meta's code.
    """
    width = int(multiplier * int(2 * 4 * dim / 3))
    return -(-width // multiple_of) * multiple_of


def _near_divisors(number, wanted):
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return ", ".join(map(str, sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:4])))


def _llama(vocab_size, context, dim, layers, heads, kv_heads, ffn, **rest):
    return Config(vocab_size, dim, layers, heads, kv_heads, ffn, context, **rest)


# The models of the reference card whose architecture this package has: LLaMA 1 and 2, Llama 3 (8K), Code Llama.
# Sources: arXiv 2302.13971, 2307.09288, 2407.21783, 2308.12950 and Meta's model cards.
PRESETS = {
    "llama-7b": _llama(32000, 2048, 4096, 32, 32, 32, ffn_width(4096, 256), norm_eps=1e-6),
    "llama-13b": _llama(32000, 2048, 5120, 40, 40, 40, ffn_width(5120, 256), norm_eps=1e-6),
    "llama-33b": _llama(32000, 2048, 6656, 60, 52, 52, ffn_width(6656, 256), norm_eps=1e-6),
    "llama-65b": _llama(32000, 2048, 8192, 80, 64, 64, ffn_width(8192, 256)),
    "llama-2-7b": _llama(32000, 4096, 4096, 32, 32, 32, ffn_width(4096, 256)),
    "llama-2-13b": _llama(32000, 4096, 5120, 40, 40, 40, ffn_width(5120, 256)),
    "llama-2-70b": _llama(32000, 4096, 8192, 80, 64, 8, ffn_width(8192, 4096, 1.3)),
    "llama-3-8b": _llama(128256, 8192, 4096, 32, 32, 8, ffn_width(4096, 1024, 1.3), rope_theta=5e5),
    "llama-3-70b": _llama(128256, 8192, 8192, 80, 64, 8, ffn_width(8192, 4096, 1.3), rope_theta=5e5),
    "codellama-7b": _llama(32016, 16384, 4096, 32, 32, 32, ffn_width(4096, 256), rope_theta=1e6),
    "codellama-34b": _llama(32000, 16384, 8192, 48, 64, 8, ffn_width(8192, 256), rope_theta=1e6),
    "codellama-70b": _llama(32016, 16384, 8192, 80, 64, 8, ffn_width(8192, 4096, 1.3), rope_theta=1e6),
}
