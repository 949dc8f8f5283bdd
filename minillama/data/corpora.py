"""Text in: files, folders and the embedded stories, split and encoded; minillama.data.batches cuts it into windows.

A corpus is a list of documents for training and one for validation. Encoded, each split is one stream of token ids in
which the end-of-text token stands before, between and after the documents; of a tokenizer that has two tokens for that,
one stands before and the other behind each document. A single document by characters is left as it is, without any.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.huggingface import read_json
from ..checkpoint.places import TEXTS_OF_MODELS
from ..files import replacing, write_text
from ..tokenizers import END_OF_TEXT, MASK, BPETokenizer, CharTokenizer, Tokenizer, load_tokenizer
from . import stories
from .batches import document_start

TEXT_SUFFIXES = {".txt", ".md", ".rst", ".tex", ".py", ".csv", ".json", ".html"}
# Folders of a data folder that hold no text of its author: environments, caches, models, runs and tokenizers.
_NOT_TEXT = {"node_modules", "__pycache__"}
_NOT_TEXT_WITH = {
    "pyvenv.cfg": "a virtual environment",
    "trainer.safetensors": "a run",
    "metrics.jsonl": "a run",
    "model*.safetensors": "a model",
    "pytorch_model*.bin": "a model",
    "consolidated*": "a model",
    "tokenizer.json": "a tokenizer",
    "train.npy": "an encoded text",
    "results*.jsonl": "results of an ablation",
}
# What lies in the folder of a run or a model and is no text, where that folder is the data folder itself.
_FILES_OF_MODELS = {*TEXTS_OF_MODELS, "corpus.json", "report.md"}
VALIDATION_SHARE = 0.1
STORIES_CHARACTERS, STORIES_SEED = 4_000_000, 0
_SHOWN = 8  # names of what was passed over, in a message
_Encoded = tuple[Tokenizer, np.ndarray, np.ndarray, dict[str, Any]]  # what _encode makes
_TOKENIZER_SAMPLE = 2_000_000  # characters that a BPE tokenizer is trained on, at most


@dataclass
class Corpus:
    """Documents as text. entropy is the sum of -log p of the validation documents under their true source, in nats,
    where the source is known: on average over such texts, no model's loss can be lower."""

    train: list[str]
    validation: list[str]
    entropy: float | None = None


@dataclass
class EncodedCorpus:
    """The two streams of token ids, the tokenizer that made them, and what is known about the validation split."""

    tokenizer: Tokenizer
    train: np.ndarray
    validation: np.ndarray
    validation_characters: int
    entropy: float | None
    fingerprint: str
    source: dict[str, Any]  # the arguments of encode_corpus; the data alone where it was given a Tokenizer

    @property
    def floor(self) -> float | None:
        """The true entropy in nats a token, which no model's loss can beat on average; None if it is unknown."""
        return None if self.entropy is None else self.entropy / self.predicted_tokens

    @property
    def predicted_tokens(self) -> int:
        """The tokens that an evaluation predicts: all of the validation split but the first."""
        return len(self.validation) - 1

    def per_character(self, nats_per_token: float) -> float:
        """A loss in nats a character of the validation text."""
        return nats_per_token * self.predicted_tokens / self.validation_characters


def read_corpus(data: str | os.PathLike, held_out: float = VALIDATION_SHARE) -> Corpus:
    """The Corpus of a UTF-8 text file, of a folder of text files, or of the name "stories"

    A file is one document, or several with the marker <|endoftext|> between them; text_files says which files of a
    folder are read. The last tenth of the characters is the validation split, as nanoGPT splits tinyshakespeare; with
    held_out=0 there is none, and train has everything.
    """
    if data == "stories":
        made = stories.generate(STORIES_CHARACTERS, STORIES_SEED)
        if not held_out:
            return Corpus(made.train + made.validation, [])
        return Corpus(made.train, made.validation, made.entropy(made.validation))
    if str(data) == "":
        raise ValueError("the name of the text is empty; give a UTF-8 text file, a folder, or 'stories'")
    path = Path(data)
    if path.is_dir():
        paths, passed_over = text_files(path)
        documents = [document for path in paths for document in _read_documents(path)]
        if not documents:
            raise ValueError(
                f"the folder {path} has no text: expected files ending in {', '.join(sorted(TEXT_SUFFIXES))} that "
                f"are not empty; found {len(paths)} such files{_listed(passed_over)}"
            )
    elif path.is_file():
        documents = _read_documents(path)
        if not documents:
            raise ValueError(f"{path} is empty; training needs some text, a few hundred kilobytes for a tiny model")
    elif path.exists():
        raise ValueError(
            f"{path} is a pipe or a device, which can be read once, and a text is read again when a run goes on; save "
            f"what comes out of it to a file"
        )
    else:
        raise FileNotFoundError(f"there is no file or folder {path}; give a UTF-8 text file, a folder, or 'stories'")
    if not held_out:
        return Corpus(documents, [])
    train, validation = _split(documents)
    if not train or not validation:
        raise ValueError(
            f"{path} has {sum(map(len, documents))} characters, too few to set a tenth aside for validation"
        )
    return Corpus(train, validation)


def text_files(folder: str | os.PathLike) -> tuple[list[Path], dict[Path, str]]:
    """The text files of a folder and of those in it, sorted, and {what was passed over: why}

    What is hidden (its name begins with a dot) is left out, and so are folders that hold no text of their author, such
    as a run's: what training writes into a data folder must not become a part of the text. Links to folders are not
    followed, so that no text is read twice.
    """
    folder = Path(folder)
    paths, passed_over = [], {}

    def unreadable(error: OSError) -> None:
        raise error

    for name, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(name)
        own = next((kind for marker, kind in _NOT_TEXT_WITH.items() if matching(files, marker)), None)
        if own is not None and here != folder:
            passed_over[here] = own
            folders.clear()
            continue
        for inner in list(folders):
            kind = "hidden" if inner.startswith(".") else "no text" if inner in _NOT_TEXT else None
            kind = "a link to a folder" if kind is None and (here / inner).is_symlink() else kind
            if kind is not None:
                folders.remove(inner)
                passed_over[here / inner] = kind
        for file in files:
            path = here / file
            if path.suffix.lower() in TEXT_SUFFIXES and path.is_file():
                if file.startswith("."):
                    passed_over[path] = "hidden"
                elif own is not None and file in _FILES_OF_MODELS:
                    passed_over[path] = f"a file of {own}"
                else:
                    paths.append(path)
    return sorted(paths), dict(sorted(passed_over.items()))


def what_is_read(data: str | os.PathLike) -> str | None:
    """What a command says of its data before it reads it: how many files of a folder, and what is passed over

    None for all but folders.
    """
    if data == "stories" or not str(data) or not Path(data).is_dir():
        return None
    paths, passed_over = text_files(data)
    return f"{len(paths)} text file{'' if len(paths) == 1 else 's'} in {data}{_listed(passed_over)}"


def _listed(passed_over: Mapping[Path, str]) -> str:
    shown = [f"{path} ({kind})" for path, kind in list(passed_over.items())[:_SHOWN]]
    more = f" and {len(passed_over) - _SHOWN} more" if len(passed_over) > _SHOWN else ""
    return f"; passed over: {', '.join(shown)}{more}" if shown else ""


def encode_corpus(
    data: str | os.PathLike, tokenizer: str | Tokenizer = "bpe", vocab_size: int = 1024, mask_token: bool = False
) -> EncodedCorpus:
    """Read data (see read_corpus), train a tokenizer on it ("bpe" of vocab_size tokens, or "char") and encode it

    mask_token adds the special token that stands for a gap, which models that fill gaps need. A Tokenizer in the place
    of a kind encodes as it is; vocab_size and mask_token do not count then. Special tokens in the text are plain text.

    The result is kept in the cache folder, keyed by the text's content: `MINILLAMA_CACHE`, or .cache/minillama in the
    home folder. Where nothing can be kept there, or what is kept is damaged, a line on standard error says so, and the
    text is encoded anew.
    """
    if isinstance(tokenizer, Tokenizer):
        terms: list[Any] = [tokenizer.to_json()]
        source: dict[str, Any] = {"data": str(data)}
    elif tokenizer in TOKENIZERS:
        terms = [tokenizer, vocab_size, (MASK,) if mask_token else ()]
        source = {"data": str(data), "tokenizer": tokenizer, "vocab_size": vocab_size, "mask_token": mask_token}
    else:
        raise ValueError(f"tokenizer must be one of {', '.join(TOKENIZERS)}; received {tokenizer!r}")
    key = hashlib.sha256(json.dumps([_code_version(), *terms]).encode())
    if data == "stories":
        corpus: Corpus | None = None
        key.update(f"{STORIES_CHARACTERS} {STORIES_SEED}".encode())
    else:
        corpus = read_corpus(data)
        for documents in (corpus.train, corpus.validation):
            key.update(f"{len(documents)} ".encode())
            for document in documents:
                key.update(f"{len(document)} ".encode() + document.encode())
    cache = cache_folder()
    folder = None if cache is None else cache / key.hexdigest()[:32]
    cached = None if folder is None else _read_cache(folder)
    if cached is None:
        corpus = corpus or read_corpus(data)
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = TOKENIZERS[tokenizer](corpus, *terms[1:])
        cached = _encode(corpus, tokenizer)
        _keep(folder, *cached)
    tokenizer_made, train, validation, facts = cached
    return EncodedCorpus(tokenizer_made, train, validation, **facts, source=source)


def cache_folder() -> Path | None:
    """Where encoded corpora are kept; None where no variable names a folder and this user has no home."""
    if os.environ.get("MINILLAMA_CACHE"):
        return Path(os.environ["MINILLAMA_CACHE"])
    try:
        return Path.home() / ".cache" / "minillama"
    except RuntimeError:
        return None


def _read_cache(folder: Path) -> _Encoded | None:
    """What _encode made, from its folder; None where there is nothing, or where it is damaged, which is said

    The fingerprint is that of the tokenizer and all tokens, so that no damage passes.
    """
    try:
        if not (folder / "corpus.json").exists():
            return None
        facts = read_json(folder / "corpus.json")
        check = facts.pop("check")
        train, validation = (np.load(folder / f"{split}.npy", allow_pickle=False) for split in ("train", "validation"))
        tokenizer = load_tokenizer(folder)
        kinds = {(tokens.dtype, tokens.ndim) for tokens in (train, validation)}
        whole = kinds == {(np.dtype(np.int32), 1)} and check == _check(facts)
        if not whole or facts["fingerprint"] != _fingerprint(tokenizer, train, validation):
            raise ValueError("its files do not belong together")
    except Exception as error:  # whatever a damaged file makes of the readers, the cache is ours and is made anew
        print(f"minillama: the cache in {folder} cannot be used and is made anew ({error})", file=sys.stderr)
        return None
    return tokenizer, train, validation, facts


def _keep(
    folder: Path | None, tokenizer: Tokenizer, train: np.ndarray, validation: np.ndarray, facts: dict[str, Any]
) -> None:
    """Write what _encode made to a folder of the cache; where that is not possible, say so and go on without"""
    try:
        if folder is None:
            raise OSError("this user has no home folder")
        for split, tokens in (("train", train), ("validation", validation)):
            with replacing(folder / f"{split}.npy") as new, open(new, "wb") as file:
                np.save(file, tokens, allow_pickle=False)
        tokenizer.save(folder)
        write_text(folder / "corpus.json", json.dumps({**facts, "check": _check(facts)}))  # last: the rest is whole
    except OSError as error:
        print(
            f"minillama: the encoded text is not kept for the next time ({error.strerror or error}); MINILLAMA_CACHE "
            f"names a folder for it",
            file=sys.stderr,
        )


def _fingerprint(tokenizer: Tokenizer, train: np.ndarray, validation: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(tokenizer.to_json()).encode())
    for tokens in (train, validation):
        digest.update(tokens.tobytes())
    return digest.hexdigest()


def _check(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _read_documents(path: Path) -> list[str]:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        return [document for document in text.split(END_OF_TEXT) if document]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte {data[error.start]:#04x} at position {error.start}. Save it as UTF-8 "
            f"(in most editors: Save with Encoding)"
        ) from error


def _split(documents: list[str]) -> tuple[list[str], list[str]]:
    """The last tenth of all characters, cutting through a document where it falls, as the validation split."""
    left = int(sum(map(len, documents)) * (1 - VALIDATION_SHARE))
    train, validation = [], []
    for document in documents:
        if document[:left]:
            train.append(document[:left])
        if document[left:]:
            validation.append(document[left:])
        left = max(0, left - len(document))
    return train, validation


def _train_char(corpus: Corpus, vocab_size: int, special_tokens: tuple[str, ...]) -> Tokenizer:
    documents = corpus.train + corpus.validation
    several = max(len(corpus.train), len(corpus.validation)) > 1
    return CharTokenizer.train("".join(documents), ((END_OF_TEXT,) if several else ()) + special_tokens)


def _train_bpe(corpus: Corpus, vocab_size: int, special_tokens: tuple[str, ...]) -> Tokenizer:
    left, sample = _TOKENIZER_SAMPLE, []
    for document in corpus.train:
        sample.append(document[:left])
        left -= len(sample[-1])
        if left <= 0:
            break
    return BPETokenizer.train(sample, vocab_size, (END_OF_TEXT, *special_tokens))


TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {"bpe": _train_bpe, "char": _train_char}


def _stream(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    begin, end = document_start(tokenizer), tokenizer.end_of_text
    two = end not in (begin, None)
    before, behind = [] if begin is None else [begin], [end] if two else [] if begin is None else [begin]
    parts: list[Any] = [[] if two else before]
    for document in documents:
        parts += [before if two else [], tokenizer.encode(document, special=False), behind]
    return np.concatenate([np.asarray(part, np.int32) for part in parts])


def _encode(corpus: Corpus, tokenizer: Tokenizer) -> _Encoded:
    """The tokenizer, the two streams of tokens, and what EncodedCorpus has besides."""
    train, validation = (_stream(tokenizer, getattr(corpus, split)) for split in ("train", "validation"))
    facts = {
        "validation_characters": sum(map(len, corpus.validation)),
        "entropy": corpus.entropy,
        "fingerprint": _fingerprint(tokenizer, train, validation),
    }
    return tokenizer, train, validation, facts


def _code_version() -> str:
    """A digest of the code that decides what an encoded corpus holds, so that a changed program makes a new one."""
    here = Path(__file__).parent
    paths = [here / "corpora.py", here / "stories.py", *sorted((here.parent / "tokenizers").glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
