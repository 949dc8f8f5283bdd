"""The formats of files: how each is recognised, who reads and writes it, and what else its files say

A format is a file with its functions, and a row of FORMATS. What is recognised is always one file, by what is in it and
never by its name: a file that is the whole model, or the description, JSON, that belongs to a folder. A row's readers
get the path of that file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..files import write_text
from ..generation.chat_templates import published_template
from ..tokenizers import load_tokenizer as read_tokenizer
from ..tokenizers.gguf import nearly
from . import generation_config, gguf, huggingface, llama2c, meta
from .places import MODEL_FILES


class Option(NamedTuple):
    """What may be asked of a format's writer."""

    help: str
    choices: tuple | None = None  # values of one type, of which the writer gets one; None: a flag, and it gets True


class FileFormat(NamedTuple):
    """A row of FORMATS."""

    describes: str  # what lies at a path of this format
    recognises: Callable  # recognises(Content) -> whether a file is of this format: of all that the readers can read
    read_config: Callable  # read_config(file) -> Config
    load: Callable  # load(file, threads, dtype) -> Model
    load_tokenizer: Callable  # load_tokenizer(file, vocab_size) -> the model's tokenizer, or None
    usual: str | None = None  # what the file is usually called where it describes a folder; None: it is the model
    # What the files say of writing text: as Generation; as the Jinja text of a chat, or None; and as a Source, to be
    # said by what is written from it, or None.
    generation: Callable = lambda file, vocab_size: generation_config.Generation()
    template: Callable = lambda file: None
    source: Callable = lambda file, vocab_size: None
    save: Callable | None = None  # save(path, model, tokenizer or None, Said or None, **options)
    says: bool = False  # whether save writes down what is Said, and so receives it
    options: Mapping[str, Option] = {}  # of save
    suffix: str | None = None  # of the names that are given to new files of this format
    files: tuple[str, ...] = ()  # the names of all that save writes where path is a folder; (): path is the one file
    # check_tokenizer(path, tokenizer, config, overwrite): ValueError, with the reason, where the format does not have
    # such tokenizers; then the model is written without it
    check_tokenizer: Callable = lambda path, tokenizer, config, overwrite: None
    # differs(tokenizer): in which texts programs of this format find other ids with it, in words, or None
    differs: Callable = lambda tokenizer: None


class Said(NamedTuple):
    """What the files of a model that is converted say of writing text."""

    source: generation_config.Source | None
    template: str | None


class Found(NamedTuple):
    """What lies at a path."""

    name: str  # of the row
    format: FileFormat
    file: Path  # the file that was recognised

    def said(self, vocab_size):
        """The Said of the model that was found, which has so many tokens."""
        return Said(self.format.source(self.file, vocab_size), self.format.template(self.file))


def _folders_tokenizer(file, vocab_size):
    try:
        return read_tokenizer(file.parent)
    except FileNotFoundError:
        return None


def _folders_template(file):
    return published_template(file.parent)


def _save_huggingface(folder, model, tokenizer, said):
    huggingface.save(folder, model, tokenizer, said.source)
    if said.template is not None:
        write_text(folder / "chat_template.jinja", said.template)


def _save_llama2c(path, model, tokenizer, said, int8=False):
    llama2c.save(path, model, tokenizer, int8)


FORMATS = {
    "huggingface": FileFormat(
        "the folder of a run, or another with config.json",
        huggingface.recognises,
        huggingface.read_config,
        huggingface.load,
        _folders_tokenizer,
        usual="config.json",
        generation=lambda file, vocab_size: generation_config.read(file.parent, vocab_size, file.name),
        template=_folders_template,
        source=lambda file, vocab_size: generation_config.source(file.parent, vocab_size, file.name),
        save=_save_huggingface,
        says=True,
        files=MODEL_FILES,
    ),
    "meta": FileFormat(
        f"a folder with {meta.PARAMS}",
        meta.recognises,
        meta.read_config,
        meta.load,
        _folders_tokenizer,
        usual=meta.PARAMS,
        generation=lambda file, vocab_size: generation_config.read(file.parent, vocab_size),
        template=_folders_template,
    ),
    "llama2c": FileFormat(
        "a file of llama2.c (usually .bin)",
        llama2c.recognises,
        llama2c.read_config,
        llama2c.load,
        llama2c.load_tokenizer,
        save=_save_llama2c,
        options={"int8": Option("round the weights to 8 bits")},
        suffix=".bin",
        check_tokenizer=llama2c.check_tokenizer_place,
    ),
    "gguf": FileFormat(
        "a file of GGUF, llama.cpp's format (.gguf)",
        gguf.recognises,
        gguf.read_config,
        gguf.load,
        gguf.load_tokenizer,
        generation=gguf.generation,
        template=gguf.template,
        save=gguf.save,
        says=True,
        options={"type": Option("of the matrices' blocks", gguf.PACKED_TYPES)},
        suffix=".gguf",
        check_tokenizer=gguf.check_tokenizer,
        differs=nearly,
    ),
}
WRITERS = {name: row for name, row in FORMATS.items() if row.save}
