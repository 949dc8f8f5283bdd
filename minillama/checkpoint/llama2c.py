"""A model as a file of llama2.c, such as stories15M.bin: float32 (versions 0 and 1) or int8 (version 2)

Version 0 begins with seven int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size and seq_len; a negative
vocab_size says that the output matrix is not the embedding. Versions 1 and 2 begin with the letters "ak42" as an int32,
the version and the same seven numbers (vocab_size positive); a byte, 1 where the output matrix is the embedding, and in
version 2 an int32, the number of weights that share a scale; zeros fill up 256 bytes. Then come the weights in the
order of `ORDERS`, the first kind of all layers, then the second, with nothing between them; a matrix of version 2 is
all its int8 and then all its float32 scales. Numbers are little-endian.

llama2.c computes one architecture: LLaMA's with theta 10000, eps 1e-5 and neighbours as the pairs of RoPE. A loaded
model has the rope_layout "interleaved"; one of the other layout is reordered when it is written.
Source: export.py, run.c and runq.c of github.com/karpathy/llama2.c.
"""

import struct
from dataclasses import fields, replace
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..config import Config
from ..files import replacing, require_free
from ..model import Model
from ..ops.positions.rope import rope_frequencies, swap_rope_layout
from ..ops.weights.int8 import GROUP, pack_int8
from ..parameters import parameter_shapes
from ..tokenizers import load_tokenizer as read_tokenizer
from ..tokenizers.llama2c import write_llama2c
from . import foreign
from .bounds import check_context
from .llama2c_tables import rotation_tables
from .tensors import write_array

_FLOAT = np.dtype("<f4")
_LAYOUT = "interleaved"
_MAGIC = b"24ka"  # 0x616b3432, little-endian
_HEADER, _LATER_HEADER = struct.Struct("<7i"), struct.Struct("<4si7iBi")
_LATER_START = 256  # bytes
_LARGEST = 2**24  # above any number of a header; four letters of a text are more
_FIELDS = ("dim", "ffn", "layers", "heads", "kv_heads", "vocab_size", "context")
# What a file can say besides; every other field of Config has its default in a model that llama2.c computes.
_FREE = {*_FIELDS, "tied", "dropout", "rope_layout"}

_LATER = (
    "attention_norm", "ffn_norm", "final_norm", "embedding", "w_q", "w_k", "w_v", "w_o", "w_gate", "w_down", "w_up",
    "output",
)  # fmt: skip
ORDERS = {
    0: (
        "embedding", "attention_norm", "w_q", "w_k", "w_v", "w_o", "ffn_norm", "w_gate", "w_down", "w_up", "final_norm",
        "cos", "sin", "output",
    ),
    1: _LATER,
    2: _LATER,
}  # fmt: skip


class Header(NamedTuple):
    """What the head of a file says, once it is known to agree with the file's size."""

    config: Config
    version: int
    start: int  # of the weights, in bytes
    group: int | None  # weights that share a scale; None: the weights are float32


def recognises(content):
    """Whether a file begins with such a header: the mark of the later versions, or the seven numbers of version 0

    One of the seven may be damaged, which `read_header` then says. Version 0 has no mark of its own, so that a file
    with that of another format is none.
    """
    if content.head.startswith(_MAGIC):
        return True
    if len(content.head) < _HEADER.size or foreign.recognise(content):
        return False
    numbers = _HEADER.unpack_from(content.head)
    signed = _FIELDS.index("vocab_size")
    return sum(0 < (abs(n) if i == signed else n) < _LARGEST for i, n in enumerate(numbers)) >= len(numbers) - 1


def read_config(path):
    """The Config of a file."""
    return read_header(path).config


def read_header(path):
    """The Header of a file; ValueError where the file does not have the size that follows from it."""
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(_LATER_START)
    later = head[: len(_MAGIC)] == _MAGIC
    if len(head) < (_LATER_START if later else _HEADER.size):
        raise ValueError(f"{path} ends within its header, after {len(head)} bytes; copy it again")
    version, start, group = 0, _HEADER.size, None
    if later:
        _, version, *numbers, shared, group = _LATER_HEADER.unpack_from(head)
        if version not in ORDERS or version == 0:
            raise ValueError(f"{path} is of llama2.c's version {version}; minillama reads 0, 1 and 2")
        start, group = _LATER_START, group if version == 2 else None
        if shared not in (0, 1):
            raise ValueError(f"{path}: the byte that says whether matrices are shared must be 0 or 1; it is {shared}")
    else:
        numbers = _HEADER.unpack_from(head)
        shared = numbers[5] > 0
        numbers = [*numbers[:5], abs(numbers[5]), numbers[6]]
    values = dict(zip(_FIELDS, numbers, strict=True))
    try:
        config = Config(**values, tied=bool(shared), rope_layout=_LAYOUT)
    except ValueError as error:
        raise ValueError(f"{path} is no model of llama2.c, or damaged; its header says {values}: {error}") from error
    if group is not None and (group < 1 or any(size % group for size in _matrix_sizes(config))):
        raise ValueError(f"{path}: {group} int8 weights share a scale, which does not divide every matrix of {values}")
    expected, found = start + _weight_bytes(config, version, group), path.stat().st_size
    if expected != found:
        raise ValueError(
            f"{path} has {found:,} bytes, but its header, {values}, asks for {expected:,}; if this is a model of "
            f"llama2.c, copy it again"
        )
    check_context(config, found, f"{path}: seq_len")
    return Header(config, version, start, group)


def _shapes(config, version):
    """{name: shape} of what the file of a model holds"""
    table = (config.context, config.head_dim // 2)
    return parameter_shapes(config) | ({"cos": table, "sin": table} if version == 0 else {})


def _matrix_sizes(config):
    return [prod(shape) for shape in _shapes(replace(config, layers=1), 2).values() if len(shape) > 1]


def _weight_bytes(config, version, group):
    """The size of all weights, from one layer: a damaged header may ask for a billion of them."""

    def size(shape):
        count = prod(shape)
        return count * 4 if group is None or len(shape) == 1 else count + count // group * 4

    shapes = _shapes(replace(config, layers=1), version).items()
    return sum(size(shape) * (config.layers if name.startswith("blocks.") else 1) for name, shape in shapes)


def _in_order(config, version):
    """[(name, shape)] in the order of the file."""
    shapes = _shapes(config, version)
    for kind in ORDERS[version]:
        names = [kind] if kind in shapes else [f"blocks.{i}.{kind}" for i in range(config.layers)]
        yield from ((name, shapes[name]) for name in names if name in shapes)


def load(path, threads=None, dtype=None):
    """The Model of a file, in float32 unless dtype is "float64"; int8 weights are multiplied by their scales.

    `minillama.weights.quantize.quantize` then finds the int8 weights of a version 2 file again, as the largest weight
    of a group has the magnitude 127 there: where rows are whole groups of GROUP, which is what llama2.c prefers.
    """
    path = Path(path)
    config, version, start, group = read_header(path)
    model = Model(config, dtype=dtype or np.float32, threads=threads, init_std=None)
    data = np.memmap(path, np.uint8, "r")

    def take(dtype, count):
        nonlocal start
        start += count * dtype.itemsize
        return data[start - count * dtype.itemsize : start].view(dtype)

    for name, shape in _in_order(config, version):
        count = prod(shape)
        if name in ("cos", "sin"):
            _check_rotation(path, name, take(_FLOAT, count).reshape(shape)[1], config)
        elif group is None or len(shape) == 1:
            model.parameters[name][:] = take(_FLOAT, count).reshape(shape)
        else:
            q = take(np.dtype(np.int8), count).reshape(-1, group)
            scales = take(_FLOAT, count // group)[:, None]
            with np.errstate(over="ignore", invalid="ignore"):  # damaged scales are taken as they are, as weights are
                np.multiply(q, scales, out=model.parameters[name].reshape(-1, group))
    return model


def _check_rotation(path, name, found, config):
    """Refuse a table whose row of position 1 is of another theta: run.c has no use for it, older readers had."""
    frequencies = rope_frequencies(config.head_dim, config.rope_theta)
    if not np.allclose(found, getattr(np, name)(frequencies), rtol=0, atol=1e-5):
        raise ValueError(
            f"{path} holds a table of rotations that is not RoPE's with theta {config.rope_theta:g}, the only one that "
            f"llama2.c computes; was the model made with another rope_theta? Then open it from its first format"
        )


def save(path, model, tokenizer=None, int8=False):
    """Write a file of version 0, float32, or of version 2, int8, and beside it the tokenizer, as `tokenizer_name` says

    Each takes the place of an old one at once, when whole. ValueError for a model that llama2.c does not compute, and
    for a tokenizer that it does not have. Weights of other number types are rounded to float32.
    """
    config, path = model.config, Path(path)
    _check_expressible(config)
    words = None if tokenizer is None else tokenizer_bytes(tokenizer, config)
    group = _group(config) if int8 else None
    version = 2 if int8 else 0
    numbers = {name: getattr(config, name) for name in _FIELDS}
    if int8:
        header = _LATER_HEADER.pack(_MAGIC, version, *numbers.values(), config.tied, group).ljust(_LATER_START, b"\0")
    else:
        header = _HEADER.pack(*(numbers | {"vocab_size": config.vocab_size * (1 if config.tied else -1)}).values())
    tables = {} if int8 else rotation_tables(config.context, config.head_dim)
    with replacing(path) as new:
        with open(new, "wb") as file:
            file.write(header)
            for name, shape in _in_order(config, version):
                array = tables[name] if name in tables else _arranged(config, name, model.parameters[name])
                if int8 and len(shape) > 1:
                    q, scales = pack_int8(array.reshape(-1, group))
                    write_array(file, q)
                    array = scales
                write_array(file, array.astype(_FLOAT, copy=False))
        if words is not None:  # here, as the model takes its place when both could be written
            with replacing(path.with_name(tokenizer_name(config))) as beside:
                beside.write_bytes(words)


def load_tokenizer(path, vocab_size):
    """The tokenizer beside a file, of whatever kind, that has as many tokens as the model; None where there is none."""
    for name in (f"tok{vocab_size}.bin", "tokenizer.bin", "tokenizer.model", "tokenizer.json"):
        if path.with_name(name).is_file() and name != path.name:
            tokenizer = read_tokenizer(path.with_name(name))
            if tokenizer.vocab_size == vocab_size:  # else it is that of another model in the same folder
                return tokenizer
    return None


def tokenizer_name(config):
    """What llama2.c calls the tokenizer's file: that of Llama 2 tokenizer.bin, others by the number of their tokens."""
    return "tokenizer.bin" if config.vocab_size == 32000 else f"tok{config.vocab_size}.bin"


def check_tokenizer_place(path, tokenizer, config, overwrite=False):
    """FileExistsError where another tokenizer lies beside the file at path; ValueError as of tokenizer_bytes

    overwrite: it may be replaced, unless another model lies there, whose tokenizer it may be.
    """
    path = Path(path)
    words, place = tokenizer_bytes(tokenizer, config), path.with_name(tokenizer_name(config))
    if place.is_file() and place.read_bytes() == words:
        return
    others = [other for other in path.parent.glob("*.bin") if other.name not in (path.name, place.name)]
    require_free([place], None if others else overwrite, "choose another folder to write to")


def tokenizer_bytes(tokenizer, config):
    """The content of the tokenizer's file; ValueError where llama2.c could not use it with this model."""
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"llama2.c needs as many tokens as the model has, {config.vocab_size}; the tokenizer has "
            f"{tokenizer.vocab_size}"
        )
    return write_llama2c(tokenizer)


def _check_expressible(config):
    for field in fields(Config):
        found = getattr(config, field.name)
        if field.name not in _FREE and found != field.default:
            raise ValueError(
                f"llama2.c has a fixed {field.name}, {field.default!r}, and this model has {found!r}: it would compute "
                f"something else. Write another format, such as a Hugging Face folder"
            )


def _group(config):
    """The number of weights that share a scale: halved from GROUP until rows are whole groups, as runq.c needs them."""
    group = GROUP
    while config.dim % group or config.ffn % group:
        group //= 2
    return group


def _arranged(config, name, array):
    """A parameter in the layout of llama2.c."""
    heads = {"w_q": config.heads, "w_k": config.kv_heads}.get(name.split(".")[-1])
    return swap_rope_layout(array, heads, config.rope_layout) if heads and config.rope_layout != _LAYOUT else array
