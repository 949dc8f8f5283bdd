"""What the file of an architecture says: a row of minillama.checkpoint.ARCHITECTURES."""

from collections.abc import Callable
from typing import NamedTuple

from ..parameters import parameter_shapes

# Fields that change nothing where the position is not "rope".
ROPE_FIELDS = {
    "rope_layout", "rope_theta", "rope_scaling", "rope_factor", "rope_original_context", "rope_low", "rope_high",
}  # fmt: skip


class Architecture(NamedTuple):
    """How the models of one model_type are written. Fields are those of Config, keys those of config.json.

    Every field of Config has to be in `fields`, `fixed` or `free`; in a model to be saved any other has its default, so
    that a choice that an architecture does not have is never lost in it.
    """

    architecture: str | None  # the class of transformers that opens it
    names: Callable  # names(config) -> {tensor of model.safetensors: names of our parameters, one below the other}
    fields: dict  # {field: key that holds its value}
    defaults: dict = {}  # {key: what transformers takes where it is missing}; other keys of `fields` are required
    fixed: dict = {}  # {field: the value that it has in every model of this type}
    free: set = set()  # fields that to_json and from_json translate, or that change nothing in these models
    required: dict = {}  # {key: values that it may have, as others change the computation; the first is written}
    translated: set = set()  # keys that to_json and from_json translate
    ignored: dict = {}  # {key: why it says nothing about the logits}, besides those of all types (.keys)
    renamed: dict = {}  # {key: what it was called in older files}
    allows: Callable = lambda config: True  # whether a Config with the fixed values can be expressed
    to_json: Callable = lambda config: {}  # {key: value} besides those of `fields` and `required`
    from_json: Callable = lambda values: {}  # {field: value} besides those of `fields` and `fixed`
    check: Callable = lambda values, config: None  # refuses values that contradict the Config made of them
    prefix: str = ""  # of most tensors; a file of the architecture without its head lacks it
    transposed: tuple = ()  # ends of the names of tensors that are (in, out) in the file
    dead: str = "$^"  # regular expression of tensors in the file that have no part in the logits
    old_names: dict = {}  # {part of a tensor's name in older files: what it is called now}
    copies: dict = {}  # {tensor that a file of a tied model may hold too: the tensor that it is a copy of}
    arrange: Callable = lambda config, parameters: parameters  # our parameters in the order of rows of the file

    def expresses(self, config):
        """Whether a model of this Config can be written so that it computes the same when it is read."""
        known = {*self.fields, *self.fixed, *self.free}
        defaults = {name: field.default for name, field in config.__dataclass_fields__.items() if name not in known}
        wanted = {**defaults, **self.fixed}
        return all(getattr(config, name) == value for name, value in wanted.items()) and self.allows(config)


def named(outer, blocks, inside):
    """`names` of an Architecture from tables {tensor: our parameters, with blanks between them}

    outer: of what stands outside of the blocks; inside: the same for a block, whose tensors have names that begin with
    `blocks` and the block's number. Tensors whose parameters the model does not have, such as biases, are left out.
    """

    def names(config):
        found = {tensor: parameters.split() for tensor, parameters in outer.items()}
        for i in range(config.layers):
            for tensor, parameters in inside.items():
                found[f"{blocks}{i}.{tensor}"] = [f"blocks.{i}.{name}" for name in parameters.split()]
        shapes = parameter_shapes(config)
        return {tensor: parameters for tensor, parameters in found.items() if parameters[0] in shapes}

    return names
