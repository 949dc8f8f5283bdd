"""Trainings that go on: from a model that exists (`train --from`), and of a run in its folder (`train --resume`)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..checkpoint import generation_config
from ..checkpoint.open import find, load, load_tokenizer, read_config, read_generation
from ..data.corpora import encode_corpus
from ..tokenizers import load_tokenizer as read_tokenizer
from ..tokenizers.vocabulary import check_ids, check_tokenizer
from ..training.objectives import objective_of
from ..training.run import Run, check_folder

_TEMPLATE = "chat_template.jinja"


class Begun:
    """A model that a training is to go on from, opened step by step: what is wrong is an error before the text is read

    Its tokenizer is kept, and its Config but for the dropout; its weights become float32. given: the options.
    """

    def __init__(self, given, folder, settings, overwrite):
        self.path, self.folder, self.overwrite = Path(given["from"]), Path(folder), overwrite
        config = read_config(self.path)
        self.config = replace(config, dropout=given.get("dropout", config.dropout))
        window = given.get("context")
        if window is not None and window < 2:
            raise ValueError(f"--context must be at least 2, a token to read and one to predict; received {window}")
        self.settings = replace(settings, window=window)
        if self.settings.window is not None and self.settings.window > config.context:
            raise ValueError(
                f"--context {self.settings.window} is more than the {config.context} tokens that {self.path} was made "
                f"for; choose up to {config.context}, or leave it out"
            )
        if self.folder.exists() and self.folder.samefile(self.path):
            raise ValueError(
                f"the model in {self.path} would be written over itself; choose another folder with --out, or go on "
                f"with its own training with --resume"
            )
        check_folder(self.folder, overwrite)
        tokenizer = load_tokenizer(self.path, config.vocab_size)
        if tokenizer is None:
            raise ValueError(
                f"{self.path} comes without a tokenizer, which turns text into tokens; put its file beside it"
            )
        try:
            check_tokenizer(tokenizer, config.vocab_size)
            self._check_special(tokenizer)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        self.tokenizer, self.texts = tokenizer, self._texts(tokenizer)

    def _texts(self, tokenizer):
        """{name: text} of the files of the new folder that say how text is written, so that it says what the model's do

        Where those have no generation_config.json but name tokens in config.json, one is made of that: the config.json
        of a run names the tokens of its tokenizer.
        """
        source, template = find(self.path).said(self.config.vocab_size)
        texts, path = {_TEMPLATE: template}, self.path / generation_config.FILE
        begin, end = tokenizer.begin_of_text, tokenizer.end_of_text
        own = generation_config.Generation(end if begin is None else begin, () if end is None else (end,))
        if path.is_file():
            texts[path.name] = path.read_bytes().decode("utf-8")
        elif source is not None and read_generation(self.path, self.config.vocab_size) != own:
            texts[path.name] = generation_config.text_of(source)
        return {name: said for name, said in texts.items() if said is not None}

    def _check_special(self, tokenizer):
        """ValueError where a special token that training puts into the text is missing in tokenizer or model."""
        used = [tokenizer.begin_of_text, tokenizer.end_of_text]
        if objective_of(self.config).needs_mask_token:
            if tokenizer.mask_token is None:
                raise ValueError("the model fills gaps, and its tokenizer has no special token that marks one")
            used.append(tokenizer.mask_token)
        check_ids([token for token in used if token is not None], tokenizer, self.config.vocab_size)

    def start(self, data, threads):
        """The Run at step 0, on a text that the model's tokenizer encodes."""
        corpus = encode_corpus(data, self.tokenizer)
        for tokens in (corpus.train, corpus.validation):
            check_ids(np.unique(tokens), self.tokenizer, self.config.vocab_size)
        model = load(self.path, threads, "float32")
        model.config = self.config
        origin = origin_of(self.path)
        return Run.start_from(self.folder, model, self.settings, corpus, origin, self.overwrite, self.texts)


def origin_of(path):
    """How the folder of a run says where its model came from."""
    return str(Path(path).resolve())


def corpus_of_run(folder, state, data):
    """The text of a run, encoded as it was when the run began; state: what `read_state` says of it."""
    if state["origin"] is None:
        return encode_corpus(**{**state["source"], "data": data})
    return encode_corpus(data, read_tokenizer(folder))


def options_of_run(state):
    """{name of an option of train: the value that it has in a run}"""
    config, settings = state["config"], state["settings"]
    saved = {**config, **settings, **state["source"], "from": state["origin"] or "nothing"}
    if state["origin"] is not None:
        saved |= {"tokenizer": "of its model", "context": settings["window"] or config["context"]}
    return saved
