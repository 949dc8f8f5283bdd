"""GGUF, llama.cpp's format: one file with the weights in blocks, what the model is, its tokenizer and its chat template

.container has the bytes, .description the model, minillama.ops.weights.blocks the blocks, minillama.tokenizers.gguf the
tokenizer.
"""

from pathlib import Path

import numpy as np

from ...files import replacing
from ...model import Model
from ...ops.positions.rope import swap_rope_layout
from ...ops.weights.blocks import BLOCKS
from ...parameters import parameter_shapes
from ...tokenizers.gguf import gguf_values, read_gguf
from ...weights import OF_TENSORS, PACKED
from ...weights.packed import WIDENED_AT_A_TIME, PackedWeights
from .. import generation_config
from . import description
from .container import MAGIC, GGUFFile, Value, write

PACKED_TYPES = tuple(name for name, row in BLOCKS.items() if row.pack)
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}  # general.file_type
_QUANTISATION_VERSION = 2  # GGML_QNT_VERSION
_ENDS = ("eos", "eot", "eom")  # tokens that end a text, an answer, a message
_TEMPLATE = "tokenizer.chat_template"


def recognises(content):
    """Whether a file begins as one of GGUF."""
    return content.head.startswith(MAGIC)


def read_config(path):
    """The Config of a file."""
    return _open(path)[1]


def _open(path):
    file = GGUFFile(path)
    try:
        return file, description.read_config(file)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def load(path, threads=None, dtype=None):
    """The Model of a file; dtype as for minillama.load

    Matrices that are all of bfloat16, or of half precision, are kept so unless dtype says otherwise; others become
    float32.
    """
    file, config = _open(path)
    names, shapes = description.names(config), parameter_shapes(config)
    kinds = {file.type(name) for name, (parameter,) in names.items() if len(shapes[parameter]) > 1}
    kept = OF_TENSORS.get(*kinds) if len(kinds) == 1 else None
    if dtype is None and kept in PACKED:
        model = Model(config, threads=threads, weights=PackedWeights(config, kept))
    else:
        model, kept = Model(config, dtype=dtype or np.float32, threads=threads, init_std=None), None
    for name, parameters in names.items():
        target = model.weights.kept(parameters)
        if kept and target.ndim > 1:
            target[:] = file.raw(name).view(target.dtype).reshape(target.shape)
        else:
            file.read_into(target, name)
    return model


def load_tokenizer(path, vocab_size):
    """The tokenizer of a file, or None."""
    try:
        return read_gguf(GGUFFile(path).values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def generation(path, vocab_size):
    """What a file says of drawing text: the tokens that begin and end one."""
    values = GGUFFile(path).values

    def token(name):
        i = values.get(f"tokenizer.ggml.{name}_token_id")
        if i is not None and not (type(i) is int and 0 <= i < vocab_size):
            raise ValueError(f"{path} says {name}_token_id = {i!r:.60}; the model has the tokens 0 to {vocab_size - 1}")
        return i

    ends = tuple(dict.fromkeys(i for i in map(token, _ENDS) if i is not None))
    return generation_config.Generation(begin=token("bos"), end=ends, pad=values.get("tokenizer.ggml.padding_token_id"))


def template(path):
    """The Jinja text of the chat template in a file, or None."""
    found = GGUFFile(path).values.get(_TEMPLATE)
    return found if isinstance(found, str) else None


def check_tokenizer(path, tokenizer, config, overwrite=False):
    """ValueError, with the reason, where GGUF does not have such a tokenizer."""
    gguf_values(tokenizer)


def save(path, model, tokenizer=None, said=None, type=None):
    """Write a file, in the place of an old one at once, when whole

    type: of the matrices' blocks, one of PACKED_TYPES; None: F32, or what the model keeps, BF16 or F16. Norms and
    biases are F32, and so is a matrix whose rows no blocks of the type fill. ValueError for a model that llama.cpp
    would compute in another way, and for weights that the type cannot hold.
    """
    config, path = model.config, Path(path)
    description.check_expressible(config)
    usual = {"bfloat16": "BF16", "float16": "F16"}.get(model.weights.kind, "F32")
    kind = type or usual
    values = description.values_of(config) | {
        "general.type": Value("string", "model"),
        "general.name": Value("string", path.stem),
        "general.file_type": Value("uint32", _FILE_TYPES[kind]),
        "general.quantization_version": Value("uint32", _QUANTISATION_VERSION),
    }
    if tokenizer is not None:
        values |= {name: Value(*value) for name, value in gguf_values(tokenizer, config.vocab_size).items()}
        if said is not None and said.template is not None:
            values[_TEMPLATE] = Value("string", said.template)
    tensors = {}
    for name, (parameter,) in description.names(config).items():
        shape = parameter_shapes(config)[parameter]
        own = kind if len(shape) > 1 and shape[-1] % BLOCKS[kind].weights == 0 else "F32"
        tensors[name] = own, shape, _pieces(model, parameter, own)
    if description.SCALINGS[config.rope_scaling].frequencies:
        factors = description.frequency_factors(config)
        tensors[description.FREQUENCIES] = "F32", factors.shape, [factors.astype("<f4").view(np.uint8)]
    with replacing(path) as new:
        write(new, values, tensors)


def _pieces(model, name, kind):
    """A parameter as raw blocks, a few rows at a time, with the rows of q and k in llama.cpp's order."""
    config, row = model.config, BLOCKS[kind]
    array = model.parameters[name]
    heads = {"w_q": config.heads, "w_k": config.kv_heads, "b_q": config.heads, "b_k": config.kv_heads}.get(
        name.split(".")[-1]
    )
    if heads and config.rope_layout != description.LAYOUT:
        array = swap_rope_layout(array, heads, config.rope_layout)
    matrix = array.reshape(-1, array.shape[-1])
    rows = max(1, WIDENED_AT_A_TIME // matrix.shape[1])
    for first in range(0, len(matrix), rows):
        part = np.asarray(matrix[first : first + rows], np.float32)
        yield row.pack(part.reshape(len(part), -1, row.weights))
