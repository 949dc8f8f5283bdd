"""What a model is: its shape and its choices, and nothing about how it is trained."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from sys import float_info
from typing import Any

from .layers.blocks import PLACEMENTS
from .layers.heads import HEADS
from .messages import closest
from .ops.feedforward import FEED_FORWARDS
from .ops.masks import MASKS
from .ops.norms import NORMS
from .ops.positions import POSITIONS
from .ops.positions.rope import ROPE_LAYOUTS
from .ops.rope_scaling import ROPE_SCALINGS

_MOST_LAYERS = 10_000  # what is made for each, names above all, would take all memory long before the weights do
# The choices by name: a field of Config and the table that it chooses from. A row more is a choice more, everywhere.
SWITCHES: dict[str, Mapping[str, Any]] = {
    "norm": NORMS,
    "placement": PLACEMENTS,
    "position": POSITIONS,
    "rope_layout": ROPE_LAYOUTS,
    "rope_scaling": ROPE_SCALINGS,
    "feed_forward": FEED_FORWARDS,
    "mask": MASKS,
    "head": HEADS,
}
# Where a bias can be added: to queries, keys and values; to what attention and the feed-forward give; to the norms; to
# the head. LLaMA has none, GPT-2 the first four, BERT all.
BIASES = ("qkv", "o", "ffn", "norm", "head")


def option(default: Any, text: str, choices: Iterable[str] | None = None) -> Any:
    """A field of a dataclass that is an option of the command line too: its default, its help, the names it can have

    The option's type is the field's. Where the default follows from other fields, the text says how: (default: ...).
    """
    return field(default=default, metadata={"text": text, "choices": choices})


@dataclass(frozen=True)
class Config:
    """The shape of a model and its choices; the defaults are LLaMA's

    Every field is checked; an error says what was received and what is possible.
    """

    vocab_size: int
    dim: int = option(128, "width of the residual stream")  # C
    layers: int = option(4, "number of blocks")
    heads: int = option(4, "query heads; they divide dim")  # their width is dim / heads
    kv_heads: int | None = option(None, "key/value heads; they divide heads (default: as many as heads)")
    ffn: int | None = option(  # F; None: ffn_width(dim) if it is gated, else 4 dim
        None,
        "width of the feed-forward layer (default: with a gate 8/3 dim, rounded up to a multiple of 8, else 4 dim)",
    )
    context: int = option(256, "longest sequence, in tokens")
    norm_eps: float = option(1e-5, "inside the square root of the norm")
    rope_theta: float = option(10000.0, "base of RoPE's frequencies")  # a larger one turns more slowly
    rope_layout: str = option("rotate_half", "which coordinates RoPE pairs", SWITCHES["rope_layout"])
    tied: bool = option(False, "use the embedding matrix as the output matrix")
    # On the embedding and on what each layer adds to the stream, not on attention.
    dropout: float = option(0.0, "share of activations dropped in training")
    norm: str = option("rmsnorm", "what normalises the stream", SWITCHES["norm"])
    placement: str = option("pre", "norms before each layer, or after its sum with the stream", SWITCHES["placement"])
    position: str = option("rope", "how the model knows where a token stands", SWITCHES["position"])
    feed_forward: str = option("swiglu", "activation of the feed-forward layer", SWITCHES["feed_forward"])
    mask: str = option(
        "causal", "what a position may read; a bidirectional model learns to fill gaps", SWITCHES["mask"]
    )
    head: str = option("linear", "what leads from the stream to the logits", SWITCHES["head"])
    bias: tuple[str, ...] = option((), "where biases are added", BIASES)
    qk_norm: bool = option(False, "normalise each head's queries and keys")  # before they are rotated
    embedding_norm: bool = option(False, "normalise the embeddings")  # before the first block
    token_types: int = 0  # kinds of segments, each with an embedding of its own; 0: none. `train` gives all the kind 0
    rope_scaling: str = option(
        "none", "how RoPE is stretched for more than the original context", SWITCHES["rope_scaling"]
    )
    rope_factor: float = option(1.0, "by how much it is stretched")
    rope_original_context: int | None = option(None, "the context that is stretched (default: context)")
    rope_low: float | None = None  # turns over the original context below which a pair is stretched; None: as published
    rope_high: float | None = None  # turns above which a pair is left alone; None: as published

    def __post_init__(self) -> None:
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        for name in ("vocab_size", "dim", "layers", "heads", "kv_heads"):
            self._require_integer(name, 1)
        self._require_integer("context", 2)  # one token to read and one to predict
        self._require_integer("token_types", 0)
        if self.layers > _MOST_LAYERS:
            raise ValueError(f"layers must be at most {_MOST_LAYERS:,}; received {self.layers:,}")
        if self.rope_original_context is not None:
            self._require_integer("rope_original_context", 2)
        for name, table in SWITCHES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}; received {getattr(self, name)!r}")
        if self.ffn is None:
            object.__setattr__(self, "ffn", ffn_width(self.dim) if self.gated else 4 * self.dim)
        self._require_integer("ffn", 1)
        for name in ("norm_eps", "rope_theta", "dropout", "rope_factor", "rope_low", "rope_high"):
            value: Any = getattr(self, name)
            if value is None and name in ("rope_low", "rope_high"):
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not abs(value) <= float_info.max:
                raise ValueError(f"{name} must be a finite number; received {value!r}")
        for name in ("tied", "qk_norm", "embedding_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False; received {getattr(self, name)!r}")
        self._check_shape()
        self._check_bias()
        self._check_rope()
        self._check_combinations()

    def _check_shape(self) -> None:
        if self.dim % self.heads:
            raise ValueError(
                f"heads must divide dim, so that every head has the same width; received dim {self.dim} and heads "
                f"{self.heads}. Near values that work: {_near_divisors(self.dim, self.heads)}"
            )
        assert self.kv_heads is not None  # it was None at most until __post_init__ began
        if self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads must divide heads, so that every key/value head serves the same number of query heads; "
                f"received heads {self.heads} and kv_heads {self.kv_heads}. Near values that work: "
                f"{_near_divisors(self.heads, self.kv_heads)}"
            )
        if not self.norm_eps >= 0:
            raise ValueError(f"norm_eps must not be negative; received {self.norm_eps}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a probability below 1; received {self.dropout}. 0 turns it off")

    def _check_bias(self) -> None:
        if not isinstance(self.bias, tuple | list):  # a string is a sequence of letters
            raise ValueError(f"bias must be a tuple of names among {', '.join(BIASES)}; received {self.bias!r}")
        unknown = [kind for kind in self.bias if kind not in BIASES]
        if unknown:
            raise ValueError(f"bias names the places {', '.join(BIASES)}; received {unknown[0]!r}")
        object.__setattr__(self, "bias", tuple(kind for kind in BIASES if kind in self.bias))

    def _check_rope(self) -> None:
        if POSITIONS[self.position].rotation is not None and self.head_dim % 2:
            raise ValueError(
                f"rotary embedding turns coordinates in pairs, so the head width dim / heads must be even; received "
                f"{self.dim} / {self.heads} = {self.head_dim}. Choose dim as a multiple of 2 * heads"
            )
        if not self.rope_theta > 0:
            raise ValueError(f"rope_theta must be positive; received {self.rope_theta}")
        if not self.rope_factor >= 1:
            raise ValueError(
                f"rope_factor stretches the context, so it must be at least 1; received {self.rope_factor}"
            )
        row = ROPE_SCALINGS[self.rope_scaling]
        for name, usual in (("rope_low", row.low), ("rope_high", row.high)):
            value = getattr(self, name)
            if value is not None and usual is None:
                raise ValueError(f"rope_scaling {self.rope_scaling!r} has no bounds in turns; leave {name} out")
            if value is not None and not value > 0:
                raise ValueError(f"{name} counts turns and must be positive; received {value}")
        if row.low is not None and row.high is not None:
            low, high = self.rope_low or row.low, self.rope_high or row.high
            if not low < high:
                raise ValueError(
                    f"rope_low must be less than rope_high, the turns that are enough to leave a pair alone; received "
                    f"{low} and {high}"
                )
            if not self.rope_theta > 1:
                raise ValueError(
                    f"rope_scaling {self.rope_scaling!r} tells fast pairs from slow ones, which needs a rope_theta "
                    f"above 1; received {self.rope_theta}"
                )

    def _check_combinations(self) -> None:
        """Refuse choices that say nothing together; each would train something else than its name says."""
        if POSITIONS[self.position].rotation is None and self.rope_scaling != _default("rope_scaling"):
            raise ValueError(
                f"rope_scaling {self.rope_scaling!r} changes rotary frequencies, and position {self.position!r} has "
                f"none. Choose position 'rope', or leave rope_scaling out"
            )
        scaling, unscaled = ROPE_SCALINGS[self.rope_scaling], self.rope_scaling == _default("rope_scaling")
        if unscaled and (self.rope_factor != 1 or self.rope_original_context is not None):
            raise ValueError(
                f"rope_factor {self.rope_factor} and rope_original_context {self.rope_original_context} change nothing "
                f"without a rope_scaling; choose one of {', '.join(ROPE_SCALINGS)}, or leave them out"
            )
        if not unscaled and not scaling.by_length and self.rope_factor == 1:
            raise ValueError(
                f"rope_scaling {self.rope_scaling!r} with rope_factor 1 stretches nothing; give the factor"
            )
        if not self.causal and not any(POSITIONS[self.position]):
            raise ValueError(
                f"mask {self.mask!r} with position {self.position!r} reads a text as a set, without any order. Choose "
                f"another position, or the mask 'causal'"
            )
        if not NORMS[self.norm].has_weight:
            unused = [
                name
                for name, on in [
                    ("qk_norm", self.qk_norm),
                    ("embedding_norm", self.embedding_norm),
                    ("bias 'norm'", "norm" in self.bias),
                    (f"placement {self.placement!r}", self.placement != _default("placement")),
                ]
                if on
            ]
            if unused:
                raise ValueError(f"norm {self.norm!r} leaves nothing for {unused[0]} to act on; leave it out")
        if self.token_types == 1:
            raise ValueError("token_types 1 gives every token the same kind; choose 0, for none, or 2 and more")

    def _require_integer(self, name: str, least: int) -> None:
        value: Any = getattr(self, name)
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_whole or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}; received {value!r}")
        if value >= 2**63:  # more than any array holds; far more overflows where it meets a float
            raise ValueError(f"{name} must be below 2^63; received {value}")
        object.__setattr__(self, name, int(value))

    @property
    def head_dim(self) -> int:
        """D, the width of one head."""
        return self.dim // self.heads

    @cached_property
    def gated(self) -> bool:
        """Whether the feed-forward multiplies two projections of its input."""
        return FEED_FORWARDS[self.feed_forward].gated

    @cached_property
    def causal(self) -> bool:
        """Whether a position reads nothing that comes after it; else the model fills gaps and writes no text."""
        return MASKS[self.mask].causal

    @cached_property
    def is_llama(self) -> bool:
        """Whether every choice is LLaMA's: then a token is decoded in one compiled call."""
        free = {"vocab_size", "dim", "layers", "heads", "kv_heads", "ffn", "context", "norm_eps", "tied", "dropout"}
        chosen = [field for field in fields(self) if field.name not in free and not field.name.startswith("rope_")]
        return all(getattr(self, field.name) == field.default for field in chosen)

    @cached_property
    def cached_context(self) -> int:
        """The longest text that can grow with a cache of keys: of a scaling by length, what needs no stretching."""
        by_length = ROPE_SCALINGS[self.rope_scaling].by_length
        return min(self.context, self.rope_original_context or self.context) if by_length else self.context

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The Config with these fields; an unknown name is an error that offers the nearest known one."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                near = closest(name, known)
                hint = f"; did you mean {near[0]!r}?" if near else f". Known: {', '.join(known)}"
                raise ValueError(f"a Config has no field {name!r}{hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields and their values, for JSON."""
        return asdict(self)


def _default(name: str) -> Any:
    return Config.__dataclass_fields__[name].default


def ffn_width(dim: int, multiple_of: int = 8, multiplier: float = 1.0) -> int:
    """LLaMA's width of the gated feed-forward: two thirds of 4 dim, times multiplier, rounded up to multiple_of.

    Three matrices of 2/3 * 4 dim hold as many parameters as the two of 4 dim that a feed-forward without a gate has.
    Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2; rounding and multiplier as in Meta's code.
    """
    width = int(multiplier * int(2 * 4 * dim / 3))
    return -(-width // multiple_of) * multiple_of


def _near_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, min(number, 10_000) + 1) if number % d == 0]  # no model has more heads
    return ", ".join(map(str, sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:4])))
