"""The training loop of a run, and the state that lets it go on where it stopped.

A run's folder holds the model as a Hugging Face directory, `metrics.jsonl`, and `trainer.safetensors`: weights, the
optimizer's state and the step, in one file, so that no interruption can mix two moments in time.
"""

import itertools
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from ..catalogue.sizes import parameter_count
from ..checkpoint import huggingface
from ..checkpoint.places import MODEL_FILES, require_no_other_model
from ..checkpoint.tensors import TensorFiles, kind_of, write_tensors
from ..config import Config
from ..data.corpora import EncodedCorpus
from ..files import InUse, alone, append_text, remove_leftovers, replacing, require_free, write_text
from ..interrupts import STOPS, interruptible
from ..model import Model
from ..runtime.memory import Store
from .optimizers import OPTIMIZERS
from .trainer import NotFinite, Settings, Trainer

STATE_FILE, METRICS_FILE, CURVE_FILE, LOCK_FILE = "trainer.safetensors", "metrics.jsonl", "loss.png", ".train.lock"
ROW_KEYS = {"step", "train_loss", "val_loss", "seconds", "tokens_per_second", "learning_rate", "gradient_norm"}
LOG_EVERY = 10  # steps between rows of metrics.jsonl; val_loss is null in rows without an evaluation
_STOPPING = "\nfinishing the step, then saving; Ctrl-C once more stops without saving"
_OTHER = "choose another folder with --out"  # what is offered where a folder is refused


class _Display:
    """The progress of a training on standard error, and texts on standard output, as long as somebody reads them

    Where the reader has gone, or a log's disk is full, the training goes on without: it is worth more than they are.
    """

    def __init__(self, steps: int, done: int, quiet: bool) -> None:
        self._bar = None
        with self._as_long_as_it_is_read():
            self._bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, disable=quiet, mininterval=0.5)

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *error: object) -> None:
        with self._as_long_as_it_is_read():
            if self._bar is not None:
                self._bar.close()

    def step(self, text: str) -> None:
        with self._as_long_as_it_is_read():
            if self._bar is not None:
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update()

    def text(self, text: str) -> None:
        with self._as_long_as_it_is_read():
            tqdm.write(text)

    @contextmanager
    def _as_long_as_it_is_read(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: a closed file
            if self._bar is not None:
                self._bar.disable = True  # or it would try again when it is closed
            self._bar = None


class Run(Trainer):
    """A training run: a Trainer, and the folder that keeps it.

    Run.start begins one with a new model, Run.start_from with one that exists, Run.resume continues one from its last
    checkpoint; `train()` does the work, and returns the last validation loss in nats a token, or None if it was
    interrupted. One process at a time trains in a folder; another gets files.InUse.

    origin: where the model came from that the run began with, a path; None for a new one.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: Model,
        settings: Settings,
        corpus: EncodedCorpus,
        origin: str | None = None,
    ) -> None:
        super().__init__(model, corpus, settings)
        self.folder, self.origin = Path(folder), origin
        self.seconds = 0.0  # spent in training so far, also before interruptions
        # Since the last row of metrics.jsonl: the loss of each step, and the seconds that they took.
        self._losses: list[float] = []
        self._interval = 0.0
        self.stopped_by = 0  # the signal that ended `train`, if any
        self._on_disk: int | None = None  # the step of the state in the folder, as far as this run knows

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike,
        config: Config,
        settings: Settings,
        corpus: EncodedCorpus,
        threads: int | None = None,
        overwrite: bool = False,
    ) -> "Run":
        """A new run in a folder in which nothing stands in its way; overwrite: in place of the run that is there."""
        check_folder(folder, overwrite)
        model = Model(config, settings.seed, threads=threads, init_std=settings.init_std)
        return cls.start_from(folder, model, settings, corpus, None, overwrite)

    @classmethod
    def start_from(
        cls,
        folder: str | os.PathLike,
        model: Model,
        settings: Settings,
        corpus: EncodedCorpus,
        origin: str | None,
        overwrite: bool = False,
        texts: Mapping[str, str] | None = None,
    ) -> "Run":
        """A new run, as `start`, that goes on from the weights of a model: step 0, and a new state of the optimizer

        texts: {name: text} of the model's files that say how text is written with it, such as chat_template.jinja.
        """
        folder = Path(folder)
        check_folder(folder, overwrite)
        run = cls(folder, model, settings, corpus, origin)
        with run._alone():
            check_folder(folder, overwrite)  # again, as another process may have begun a run there in the meantime
            if origin is not None:  # then `resume` encodes the text with the tokenizer of the folder
                corpus.tokenizer.save(folder)
            run._save_state()  # before the model: from here on the folder holds a run, which can be resumed
            for name in (CURVE_FILE, "generation_config.json", "chat_template.jinja"):  # of what was there before
                (folder / name).unlink(missing_ok=True)
            for name, text in (texts or {}).items():
                write_text(folder / name, text)
            huggingface.save(folder, run.model, corpus.tokenizer)
            write_text(folder / METRICS_FILE, "")
        return run

    @classmethod
    def resume(cls, folder: str | os.PathLike, corpus: EncodedCorpus, threads: int | None = None) -> "Run":
        """The run of a folder at its last checkpoint. Rows of metrics.jsonl that are later are taken back.

        threads None means as many as before, which makes the run go on to the same bits. Of a damaged metrics.jsonl
        the rows that can be read are kept, and the file itself under another name.
        """
        state = read_state(folder)
        threads = state["threads"] if threads is None else threads
        model = Model(Config.from_dict(state["config"]), threads=threads, init_std=None)
        run = cls(folder, model, Settings.saved(state["settings"]), corpus, state["origin"])
        if state["corpus"] != corpus.fingerprint:
            raise ValueError(
                f"the text or its tokens differ from those that the run in {folder} was started with; a run can only "
                f"be continued on the same data"
            )
        with run._alone():
            state = read_state(folder)  # as no other process changes it now
            saved = TensorFiles([run.folder / STATE_FILE])
            for name, array in run._state_tensors().items():
                saved.read_into(array, name)
            run.optimizer.steps = run._on_disk = state["step"]
            run.seconds = state["seconds"]
            run._losses, run._interval = state.get("losses", []), state.get("interval", 0.0)
            remove_leftovers(run.folder, [*MODEL_FILES, STATE_FILE, METRICS_FILE, CURVE_FILE])
            rows = [row for row in _mended_metrics(folder) if row["step"] <= state["step"]]
            write_text(run.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))
        return run

    def _alone(self) -> AbstractContextManager:
        return alone(self.folder / LOCK_FILE, f"training in {self.folder}")

    def save(self) -> None:
        """Write the checkpoint: first the model for others to open, then the state that `resume` reads."""
        huggingface.save(self.folder, self.model, self.corpus.tokenizer)
        self._save_state()

    def _save_state(self) -> None:
        state = {
            "step": self.optimizer.steps,
            "seconds": self.seconds,
            "losses": self._losses,
            "interval": self._interval,
            "config": self.model.config.to_dict(),
            "settings": asdict(self.settings),
            "threads": self.model.workers.threads,
            "corpus": self.corpus.fingerprint,
            "source": self.corpus.source,
            "origin": self.origin,
            "floor": self.floor,
            "unit": self.unit,
            "characters_per_token": self.corpus.validation_characters / self.corpus.predicted_tokens,
        }
        with replacing(self.folder / STATE_FILE) as new:
            tensors = {name: (kind_of(array), array) for name, array in self._state_tensors().items()}
            write_tensors(new, tensors, {"run": json.dumps(state)})
        self._on_disk = self.optimizer.steps

    def _state_tensors(self) -> dict[str, np.ndarray]:
        return {"weights": cast(Store, self.model.parameters).flat, **self.optimizer.state}

    def train(self, quiet: bool = False) -> float | None:
        """Train up to settings.steps; a request to stop (Ctrl-C, SIGTERM and their kin) saves and returns None."""
        s, optimizer = self.settings, self.optimizer
        tokens_a_step = s.batch_size * self.window
        loss, mark = None, time.perf_counter()
        show = _Display(s.steps, optimizer.steps, quiet)
        with self._alone_since_opened(), show, interruptible(_STOPPING, STOPS) as interrupted:
            while optimizer.steps < s.steps:
                train_loss, norm, rate = self.step()
                self._losses.append(train_loss)
                now = time.perf_counter()
                self._interval, self.seconds, mark = self._interval + now - mark, self.seconds + now - mark, now
                last = optimizer.steps == s.steps
                evaluating = last or optimizer.steps % s.eval_every == 0
                speed = tokens_a_step * len(self._losses) / self._interval
                if evaluating or optimizer.steps % LOG_EVERY == 0:
                    loss = self._evaluate_finite(norm, rate) if evaluating else None
                    self._log(train_loss=float(np.mean(self._losses)), val_loss=loss, speed=speed, rate=rate, norm=norm)
                    self._losses, self._interval = [], 0.0
                    if evaluating:
                        self.save()
                if interrupted() and not last:
                    self.stopped_by = interrupted()
                    if not evaluating:
                        self.save()
                    return None
                show.step(f"loss {train_loss:.3f}, {speed:,.0f} tokens/s")
                if loss is not None and evaluating and not quiet:
                    show.text(self._report(loss))
                mark = time.perf_counter() if evaluating else mark
        return loss if loss is not None else self.evaluate()

    @contextmanager
    def _alone_since_opened(self) -> Iterator[None]:
        with self._alone():
            if read_state(self.folder)["step"] != self._on_disk:
                raise InUse(
                    f"the run in {self.folder} has gone on since it was opened here, in another process; resume it anew"
                )
            yield

    def _evaluate_finite(self, norm: float, rate: float) -> float:
        loss = self.evaluate()
        if not math.isfinite(loss):
            raise self.not_finite(f"after step {self.optimizer.steps}: validation loss {loss}", norm, rate)
        return loss

    def not_finite(self, what: str, norm: float, rate: float) -> NotFinite:
        error = super().not_finite(what, norm, rate)
        return NotFinite(f"{error}. The last checkpoint in {self.folder} is kept")

    def _report(self, loss: float) -> str:
        floor = "" if self.floor is None else f" (true entropy {self.floor:.4f})"
        return f"step {self.optimizer.steps}: validation loss {loss:.4f} nats a {self.unit}{floor}\n{self.sample()}\n"

    def _log(self, train_loss: float, val_loss: float | None, speed: float, rate: float, norm: float) -> None:
        row = {
            "step": self.optimizer.steps,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(speed, 1),
            "learning_rate": rate,
            "gradient_norm": norm,
        }
        append_text(self.folder / METRICS_FILE, json.dumps(row) + "\n")


def check_folder(folder: str | os.PathLike, overwrite: bool = False) -> None:
    """FileExistsError where a new run in the folder would change files that are there, or mix with another model

    overwrite: files of the names that a run has may be replaced.
    """
    folder = Path(folder)
    if (folder / STATE_FILE).exists() and not overwrite:
        raise FileExistsError(
            f"{folder} already holds a run ({STATE_FILE}); continue it with --resume, {_OTHER}, or begin anew in its "
            f"place with --overwrite"
        )
    names = [*MODEL_FILES, STATE_FILE, METRICS_FILE, CURVE_FILE]
    require_no_other_model(folder, names, _OTHER)
    require_free([folder / name for name in names], overwrite, _OTHER)


def read_state(folder: str | os.PathLike) -> dict[str, Any]:
    """Step, settings, config, threads and data of the run in a folder, as a dictionary

    A setting that the run was made without, by an older version, has its default.
    """
    path = Path(folder) / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run to resume: there is no {path.name}. Start it without --resume")
    try:
        saved = TensorFiles([path])
        state = json.loads(saved.metadata["run"])
        unknown = state["settings"].keys() - {field.name for field in fields(Settings)}
        if unknown:
            raise ValueError("its settings are not those of this version")
        state = {"origin": None, **state, "settings": asdict(Settings()) | state["settings"]}
        _check_state(state, saved)
        return state
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is truncated or was not written by minillama ({error!r}); it cannot be resumed"
        ) from error


def _check_state(state: dict[str, Any], shapes: TensorFiles) -> None:
    """An error for what no run has saved, before any of it is used; its text is told with the file's name."""
    config, settings = Config.from_dict(state["config"]), Settings.saved(state["settings"])
    tensors = "weights", *OPTIMIZERS[settings.optimizer].state_names
    if shapes.keys() != set(tensors):
        raise ValueError(f"its tensors are {', '.join(shapes)}, not {', '.join(tensors)}")
    kinds: dict[str, type | tuple[type, ...]] = {
        "step": int,
        "threads": int,
        "seconds": (int, float),
        "corpus": str,
        "source": dict,
        "origin": (str, type(None)),
    }
    wrong = [name for name, kind in kinds.items() if not isinstance(state[name], kind)]
    if wrong or not isinstance(state["source"]["data"], str):
        raise ValueError(f"{(wrong or ['source'])[0]} is of another type")
    if not 0 <= state["step"] <= settings.steps:
        raise ValueError(f"it is at step {state['step']} of {settings.steps}")
    size = parameter_count(config)["total"]
    for name in tensors:
        if list(shapes[name]) != [size]:
            raise ValueError(f"{name} has shape {list(shapes[name])}, and its config has {size} parameters")


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl. A last line that was cut off by a kill is left out; ValueError for a damaged one."""
    rows, damaged = _read_rows(Path(folder) / METRICS_FILE)
    if damaged:
        raise ValueError(
            f"line {damaged[0]} of {Path(folder) / METRICS_FILE} is damaged; `minillama train --resume` keeps the rows "
            f"that can be read, or remove that line"
        )
    return rows


def _read_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a file of metrics, and the numbers of the lines that are none."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    rows, damaged = [], []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            if not (isinstance(row, dict) and isinstance(row["step"], int) and row.keys() >= ROW_KEYS):
                raise ValueError("no row")
            rows.append(row)
        except (ValueError, KeyError, RecursionError):
            damaged.append(number)
    return rows, damaged


def _mended_metrics(folder: str | os.PathLike) -> list[dict[str, Any]]:
    """The rows that can be read of metrics.jsonl, which is kept under another name where others cannot."""
    path = Path(folder) / METRICS_FILE
    rows, damaged = _read_rows(path)
    if damaged:
        names = (path.with_name(f"metrics-damaged-{n}.jsonl") for n in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        with replacing(kept) as new:  # a copy: until the mended file takes its place, this one stays
            shutil.copyfile(path, new)
        those = f"line {damaged[0]} of {path} is damaged"
        if len(damaged) > 1:
            those = f"{len(damaged)} lines of {path} are damaged, the first is line {damaged[0]}"
        print(f"{those}: the other rows go on, and the file as it was is kept in {kept}", file=sys.stderr)
    return rows
