"""minillama's own model_type, "minillama", for architectures that transformers does not have

Most choices, such as ALiBi with RMSNorm or a ladder's step between GPT-2 and LLaMA, stand in no model of transformers,
so there is no class there that would compute the same, and `AutoModelForCausalLM` refuses the directory ("does not
recognize this architecture"). minillama opens it, and so does every tool that reads safetensors: config.json holds the
fields of Config as they are, and the tensors have the names of minillama.parameters.
"""

from dataclasses import MISSING, fields

from ..config import Config
from ..parameters import parameter_shapes
from .architecture import Architecture


def own_names(config):
    return {name: [name] for name in parameter_shapes(config)}


ARCHITECTURE = Architecture(
    architecture=None,
    names=own_names,
    fields={field.name: field.name for field in fields(Config)},
    defaults={field.name: field.default for field in fields(Config) if field.default is not MISSING},
)
