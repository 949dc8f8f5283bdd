"""The models and batches that are measured, and how much arithmetic and memory each part of the work needs at least."""

from dataclasses import dataclass, replace

from ..catalogue.presets import PRESETS
from ..catalogue.sizes import flops_per_token, parameter_count
from ..config import Config


@dataclass(frozen=True)
class Shape:
    """A model and a batch of sequences of the model's whole context."""

    config: Config
    batch_size: int
    prompt: int | None = None  # tokens that the prefill reads; None: not measured with this shape
    decoded: int | None = None  # tokens that decoding writes after a prompt of one; None: not measured

    @property
    def tokens(self):
        return self.batch_size * self.config.context

    @property
    def training_flops(self):
        """Of one step: 6 for each weight of a matrix product and token, and attention, 6 T C a layer and token

        That is three forward passes, a query reading half of the context on average (sizes.flops_per_token).
        """
        return 3 * self.tokens * flops_per_token(self.config, self.config.context / 2)

    @property
    def prefill_flops(self):
        """Of reading the prompt: one forward pass, the output matrix at the last position only."""
        output = 2 * self.config.vocab_size * self.config.dim
        return self.prompt * (flops_per_token(self.config, self.prompt / 2) - output) + output

    @property
    def weights_a_token(self):
        """The weights that decoding a token must read: every matrix and norm once, and one row of the embedding

        With tied matrices the embedding is read as a whole, because it is the output matrix.
        """
        counts, config = parameter_count(self.config), self.config
        return counts["total"] - (0 if config.tied else (config.vocab_size - 1) * config.dim)

    @property
    def training_bytes(self):
        """What a training step must move at least, if every array is read or written as rarely as can be

        A weight: read by the forward and the backward, its gradient written and read, and AdamW reads it with two
        moments and writes the three. An activation that the backward needs: written once and read once; a block keeps
        4 C for the residual stream and norms, (H + 2 K) D for q, k, v, C for the mixed values and 3 F.
        """
        config = self.config
        kept = 5 * config.dim + (config.heads + 2 * config.kv_heads) * config.head_dim + 3 * config.ffn
        return 4 * (10 * parameter_count(config)["total"] + 2 * self.tokens * config.layers * kept)

    @property
    def prefill_bytes(self):
        """The weights once, and each block's input, output, keys and values once."""
        config = self.config
        kept = 2 * config.dim + 2 * config.kv_heads * config.head_dim
        return 4 * (self.weights_a_token + self.prompt * config.layers * kept)


SHAPES = {
    "char": Shape(Config(65, dim=128, layers=4, heads=4, ffn=344, context=64), 12),
    "stories260K": Shape(Config(512, dim=64, layers=5, heads=8, kv_heads=4, ffn=172, context=512), 4, decoded=255),
    "stories15M": Shape(
        Config(32000, dim=288, layers=6, heads=6, ffn=768, context=256, tied=True), 4, prompt=256, decoded=255
    ),
    "long": Shape(Config(512, dim=256, layers=4, heads=8, kv_heads=2, ffn=688, context=2048), 1),
    "110M": Shape(
        Config(32000, dim=768, layers=12, heads=12, ffn=2048, context=1024, tied=True), 1, prompt=512, decoded=255
    ),
}
CHECKPOINT = Shape(replace(PRESETS["llama-3.2-1b"], context=2048), 1, prompt=32, decoded=32)
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)  # of the sequence, at the width of `long`


def attention_flops(config, batch_size, T):
    """(forward, backward) of causal attention alone: 2 B H T^2 D, the half that is not masked, and 5/2 of it

    The forward forms Q K^T and P V; the backward Q K^T again and the four products of dV, dP, dQ and dK.
    """
    forward = 2 * batch_size * T * T * config.heads * config.head_dim
    return forward, 5 * forward // 2


def attention_bytes(config, batch_size, T):
    """(forward, backward): q, k, v read and o written; then those and do read and dq, dk, dv written."""
    q, kv = config.heads * config.head_dim, 2 * config.kv_heads * config.head_dim
    return 4 * batch_size * T * (2 * q + kv), 4 * batch_size * T * (4 * q + 2 * kv)


def matmul_shapes(shapes):
    """{name: (rows, depth, columns)}: two squares, and the widest product of each model's blocks, w_gate_up"""
    sizes = {f"{size} square": (size, size, size) for size in (512, 1024)}
    for name, shape in shapes.items():
        size = shape.tokens, shape.config.dim, 2 * shape.config.ffn
        sizes[f"{name}, {' x '.join(map(str, size))}"] = size
    return sizes


ELEMENTS = 2**24  # of an elementwise operation's array: 64 MB, larger than the caches
WIDTH = 1024  # of its rows


def elementwise_costs():
    """{operation: (FLOPs, bytes)} at ELEMENTS elements of input, an exponential counted as 10 operations

    rmsnorm: square and add, two products; read and written. swiglu: gate and up, each half of the input, make half an
    output: silu 13 (exp, add, divide, negate), a product. adamw: the two moments 3 + 4, their corrections 2, root,
    sum and quotient 3, decay and step 3; reads weight, gradient and two moments, writes all but the gradient.
    """
    n = ELEMENTS
    return {"rmsnorm": (4 * n, 8 * n), "swiglu": (14 * n // 2, 6 * n), "adamw": (15 * n, 28 * n)}
