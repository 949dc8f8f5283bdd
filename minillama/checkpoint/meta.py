"""A model in the layout of Meta's downloads: params.json and consolidated*.safetensors

Meta computes on several processors, each with a piece of every matrix, and its larger models come in such pieces: file
i of n has the i-th of n parts of the rows of wq, wk, wv, w1, w3 and output, and of the columns of wo and w2. The
embedding is cut by columns in Llama 1 and 2 and by rows in Llama 3. Norms are whole in each file. What was cut how
follows from the shapes. Queries and keys have neighbours as the pairs of RoPE: rope_layout "interleaved".

params.json does not say everything. Where the model has the shape of a published one (minillama.catalogue.presets), the
context and the factor by which RoPE is stretched are that model's. For others the context is max_seq_len, a setting of
Meta's program that may be written into params.json, or 131072 with a stretched RoPE and else 2048; the factor is
rope_scaling_factor, or 8. Meta's program has 8 for all models, which is wrong for Llama 3.2 1B and 3B, as
github.com/meta-llama/llama-models says in its issues 166 and 241: they have 32. Source: models/llama3/args.py,
models/llama3/model.py and models/checkpoint.py of llama-models.
"""

from dataclasses import fields, replace
from numbers import Integral, Real
from pathlib import Path

from ..catalogue.presets import PRESETS
from ..config import Config, ffn_width
from ..messages import closest
from ..parameters import parameter_shapes
from . import foreign
from .architecture import named
from .bounds import check_context
from .contents import is_safetensors, look
from .huggingface import empty_model, read_json
from .tensors import TensorFiles

PARAMS = "params.json"
_WEIGHTS = "consolidated*.safetensors"
_UNUSED = {"rope.freqs"}  # the frequencies, which Llama 1 and 2 hold

_FIELDS = {"dim": "dim", "n_layers": "layers", "n_heads": "heads", "n_kv_heads": "kv_heads"}
_REQUIRED = ("dim", "n_layers", "n_heads")
# The defaults are those of Meta's program, where it has one; Llama 3 says all of them.
_DEFAULTS = {
    "n_kv_heads": None,
    "vocab_size": -1,  # that of the tokenizer, so of the embedding
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "use_scaled_rope": False,
    "rope_scaling_factor": None,
    "max_seq_len": None,
}
_IGNORED = {"max_batch_size"}
_STRETCHED = {"rope_scaling": "llama3", "rope_original_context": 8192}
_FACTOR, _STRETCHED_CONTEXT, _CONTEXT = 8.0, 131072, 2048
# What params.json leaves open, so that it has no part in the comparison with published models.
_OPEN = {"vocab_size", "context", "rope_factor", "tied", "rope_layout"}

_OUTER = {
    "tok_embeddings.weight": "embedding",
    "norm.weight": "final_norm",
    "output.weight": "output",
}
_BLOCK = {
    "attention_norm.weight": "attention_norm",
    "attention.wq.weight": "w_q",
    "attention.wk.weight": "w_k",
    "attention.wv.weight": "w_v",
    "attention.wo.weight": "w_o",
    "ffn_norm.weight": "ffn_norm",
    "feed_forward.w1.weight": "w_gate",
    "feed_forward.w2.weight": "w_down",
    "feed_forward.w3.weight": "w_up",
}
_EMBEDDING, _OUTPUT = "tok_embeddings.weight", "output.weight"


def recognises(content):
    """Whether a file is a params.json, by two of the keys that it cannot do without; DistilBERT has them too."""
    return len(content.keys & set(_REQUIRED)) >= 2 and "model_type" not in content.keys


def read_config(path):
    """The Config of a folder's params.json."""
    return _open(Path(path))[0]


def load(path, threads=None, dtype=None):
    """The Model of a params.json and the weights beside it; dtype as for minillama.checkpoint.huggingface.load."""
    path = Path(path)
    config, pieces = _open(path)
    names, shapes = named(_OUTER, "layers.", _BLOCK)(config), parameter_shapes(config)
    tensors = {name: shapes[parameter] for name, (parameter,) in names.items()}
    axes = pieces.axes(tensors)
    kinds = [(pieces.kind(name), shape) for name, shape in tensors.items()]
    model = empty_model(path, config, kinds, dtype, threads)
    for name, parameters in names.items():
        pieces.read_into(model.weights.kept(parameters), name, axes[name])
    return model


def _open(path):
    """The Config of a params.json, and the weights beside it."""
    values = read_json(path)
    pieces = Pieces(_weight_files(path.parent))
    try:
        config = config_from_params(values, pieces)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    check_context(config, pieces.nbytes, f"{path}, or the published model of this shape,")
    return config, pieces


def _weight_files(folder):
    """The files of tensors, under their usual names or, where there are none of these, under any."""
    files = sorted(folder.glob(_WEIGHTS)) or [content.path for content in look(folder) if is_safetensors(content)]
    if not files:
        foreign.refuse_folder(folder)
        raise FileNotFoundError(f"{folder} has a {PARAMS} but no {_WEIGHTS}; is the copy complete?")
    return files


def config_from_params(values, pieces):
    """The Config of a params.json; ValueError for a key that is unknown, missing or asks for something else."""
    if not isinstance(values, dict):
        raise ValueError(f"it must hold an object with the keys of Meta's ModelArgs; received {values!r:.60}")
    known = {*_REQUIRED, *_DEFAULTS, *_IGNORED}
    for key in values:
        if key not in known:
            near = closest(key, known)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown key {key!r}{hint} It may change the model: mend or remove it")
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; is it the params.json of a LLaMA?")
    values = _DEFAULTS | values
    if values["n_layers"] != pieces.layers:
        raise ValueError(f"it says n_layers = {values['n_layers']!r:.60}, and the weights have {pieces.layers}")
    if not isinstance(values["use_scaled_rope"], bool):
        raise ValueError(f"use_scaled_rope must be true or false; received {values['use_scaled_rope']!r:.60}")
    stretched = values["use_scaled_rope"]
    if values["rope_scaling_factor"] is not None and not stretched:
        raise ValueError("rope_scaling_factor changes nothing without use_scaled_rope; mend or remove it")
    config = Config(
        **{field: values[key] for key, field in _FIELDS.items()},
        vocab_size=pieces.vocab_size(values["dim"]) if values["vocab_size"] == -1 else values["vocab_size"],
        ffn=_ffn(values),
        context=_STRETCHED_CONTEXT if stretched else _CONTEXT,
        norm_eps=values["norm_eps"],
        rope_theta=values["rope_theta"],
        rope_layout="interleaved",
        tied=pieces.tied,
        **(_STRETCHED | {"rope_factor": _FACTOR} if stretched else {}),
    )
    given = {"context": values["max_seq_len"], "rope_factor": values["rope_scaling_factor"]}
    return replace(_as_published(config), **{name: value for name, value in given.items() if value is not None})


def _ffn(values):
    """The width of the feed-forward, which follows from dim."""
    dim, multiple, multiplier = (values[key] for key in ("dim", "multiple_of", "ffn_dim_multiplier"))
    for key in ("dim", "multiple_of"):
        if not isinstance(values[key], Integral) or isinstance(values[key], bool) or not 1 <= values[key] < 2**31:
            raise ValueError(f"{key} must be a whole number from 1 to 2^31 - 1; received {values[key]!r:.60}")
    if multiplier is not None and not (isinstance(multiplier, Real) and 0 < multiplier < 2**31):
        raise ValueError(f"ffn_dim_multiplier must be a number above 0 and below 2^31; received {multiplier!r:.60}")
    return ffn_width(dim, multiple, 1.0 if multiplier is None else multiplier)


def _as_published(config):
    """The Config with the context and the stretch of the published model that has its shape, where there is one."""
    compared = [field.name for field in fields(Config) if field.name not in _OPEN]
    for preset in PRESETS.values():
        if all(getattr(preset, name) == getattr(config, name) for name in compared):
            return replace(config, context=preset.context, rope_factor=preset.rope_factor)
    return config


class Pieces:
    """The tensors of one or several files, each of which has a piece of every matrix."""

    def __init__(self, paths):
        self._paths, self._files = paths, [TensorFiles([path]) for path in paths]
        self._shapes = {name: shape for name, shape in self._files[0].items() if name not in _UNUSED}
        for path, file in zip(paths, self._files, strict=True):
            if {name: shape for name, shape in file.items() if name not in _UNUSED} != self._shapes:
                raise ValueError(
                    f"{path} and {paths[0]} do not hold pieces of the same tensors; copy the files of one model there"
                )
            differing = [name for name in self._shapes if file.kind(name) != self._files[0].kind(name)]
            if differing:
                raise ValueError(f"{path} and {paths[0]} hold different number types of {differing[0]}")

    @property
    def nbytes(self):
        """The size of the files."""
        return sum(file.nbytes for file in self._files)

    @property
    def layers(self):
        """The number of layers that there are norms of."""
        return sum(name.endswith("attention_norm.weight") for name in self._shapes)

    def vocab_size(self, dim):
        """The number of rows of the embedding, for a model of this width."""
        shape, n = self._shapes.get(_EMBEDDING, ()), len(self._files)
        for cut, rows in ((1, n), (n, 1)):
            if len(shape) == 2 and shape[1] * cut == dim:
                return shape[0] * rows
        raise ValueError(f"it says dim = {dim!r:.60}, and {_EMBEDDING} has the shape {shape} in each of {n} files")

    @property
    def tied(self):
        """Whether the output matrix is the embedding: Meta's Llama 3.2 1B and 3B hold it twice."""
        if _OUTPUT not in self._shapes:
            return True
        if self._shapes[_OUTPUT] != self._shapes.get(_EMBEDDING):
            return False
        return all(file.same(_EMBEDDING, _OUTPUT) for file in self._files)

    def kind(self, name):
        """How the tensor's numbers are written: "F32", "BF16" ..."""
        return self._files[0].kind(name)

    def axes(self, shapes):
        """{name: axis along which the files have pieces of it, None where each has the whole} for tensors {name: shape}

        ValueError where these are not the tensors and shapes of the files.
        """
        found, path, n = dict(self._shapes), self._paths[0], len(self._files)
        if _OUTPUT not in shapes:
            found.pop(_OUTPUT, None)
        missing, extra = sorted(shapes.keys() - found.keys()), sorted(found.keys() - shapes.keys())
        if missing or extra:
            raise ValueError(
                f"{path} does not belong to its {PARAMS}: {len(missing)} tensors missing {missing[:3]}, {len(extra)} "
                f"unexpected {extra[:3]}"
            )
        return {name: self._axis(name, shape, n) for name, shape in shapes.items()}

    def _axis(self, name, shape, n):
        found = self._shapes[name]
        if found == shape and (len(shape) == 1 or n == 1):
            return None
        for axis in range(2):
            if len(found) == len(shape) == 2 and shape == tuple(s * n if i == axis else s for i, s in enumerate(found)):
                return axis
        raise ValueError(
            f"{self._paths[0]}: {name} has shape {found}; {PARAMS} asks for {shape}, or one of {n} pieces of that"
        )

    def read_into(self, target, name, axis):
        """target[:] = the tensor, put together from its pieces"""
        if axis is None:
            self._files[0].read_into(target, name)
            return
        for i, file in enumerate(self._files):
            part = slice(i * self._shapes[name][axis], (i + 1) * self._shapes[name][axis])
            file.read_into(target[part] if axis == 0 else target[:, part], name)
