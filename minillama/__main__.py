"""The command line: python -m minillama COMMAND; `python -m minillama --help` lists the commands."""

import argparse
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from . import PRESETS, Config, __version__, load
from .backend import missing_kernels
from .catalogue.presets import FAMILIES
from .checkpoint.places import require_no_other_model
from .cli import idle, streams
from .cli.arguments import Parser
from .config import BIASES, SWITCHES
from .files import require_folders, require_free, write_text
from .interrupts import exit_code
from .messages import MissingExtra, command_line, unknown
from .ops.positions import POSITIONS
from .runtime.workers import available_threads, check_threads
from .tokenizers.vocabulary import check_ids, check_tokenizer

_MODEL_OPTIONS = {
    "context": "longest sequence, in tokens",
    "dim": "width of the residual stream",
    "layers": "number of blocks",
    "heads": "query heads; they divide dim",
    "kv_heads": "key/value heads; they divide heads (default: as many as heads)",
    "ffn": "width of the feed-forward layer (default: with a gate 8/3 dim, rounded up to a multiple of 8, else 4 dim)",
    "dropout": "share of activations dropped in training",
    "tied": "use the embedding matrix as the output matrix",
    "norm": "what normalises the stream",
    "norm_eps": "inside the square root of the norm",
    "placement": "norms before each layer, or after its sum with the stream",
    "position": "how the model knows where a token stands",
    "rope_layout": "which coordinates RoPE pairs",
    "rope_theta": "base of RoPE's frequencies",
    "rope_scaling": "how RoPE is stretched for more than the original context",
    "rope_factor": "by how much it is stretched",
    "rope_original_context": "the context that is stretched (default: context)",
    "feed_forward": "activation of the feed-forward layer",
    "mask": "what a position may read; a bidirectional model learns to fill gaps",
    "head": "what leads from the stream to the logits",
    "bias": "where biases are added",
    "qk_norm": "normalise each head's queries and keys",
    "embedding_norm": "normalise the embeddings",
}
_TRAINING_OPTIONS = {
    "steps": "updates of the weights",
    "batch_size": "sequences in a step",
    "micro_batches": "compute a batch in this many parts, one after the other, to save memory",
    "lr": "peak learning rate",
    "warmup": "steps of linear warm-up, fewer than steps (default: 50, or a tenth of 50 steps and fewer)",
    "lr_floor": "final learning rate as a share of the peak, reached along a cosine",
    "beta1": "AdamW: decay of the mean of the gradient",
    "beta2": "AdamW: decay of the mean of its square",
    "weight_decay": "AdamW: decay of matrices",
    "clip": "largest norm of the gradient, a longer one is shortened to it; 0 turns that off",
    "seed": "of the initial weights, the order of the data and dropout",
    "init_std": "standard deviation of the initial weights",
    "eval_every": "steps between evaluations, samples and checkpoints",
}
_OTHER = "choose another folder with --out"  # what is offered where a file is in the way
_MODEL = "folder of a run, of Hugging Face or of Meta's layout, or a file of llama2.c"
_ABLATION_SHAPE = ("dim", "layers", "heads", "context")
_ABLATION_SETTINGS = ("steps", "batch_size", "lr", "warmup", "lr_floor", "weight_decay", "clip", "init_std")
_COMPARISON_SETTINGS = ("steps", "batch_size", "lr", "init_std")
_DATA_OPTIONS = {
    "data": ("stories", "a UTF-8 text file, a folder of text files, or stories, the built-in source"),
    "tokenizer": ("bpe", "bpe (byte-level) or char"),
    "vocab_size": (1024, "tokens of the bpe tokenizer"),
}


def main(arguments=None):
    """Run one command; returns the exit code: 0, or 1 after an error that is explained on stderr

    130 after Ctrl-C; 128 and the number of another signal that ended a training, which is saved then.
    """
    if not streams.prepare("minillama"):
        return 1
    options = _parser().parse_args(arguments)
    try:
        idle.refuse(options)
        return options.command(options) or 0
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        sys.stdout = None
        return 1
    except (ValueError, ArithmeticError, OSError, MissingExtra) as error:
        message = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else error
        print(f"minillama: error: {message}", file=sys.stderr)
        return 1
    except MemoryError as error:
        wanted = f" ({error})" if str(error) else ""
        print(
            f"minillama: error: this needs more memory than there is{wanted}. Choose a smaller model, batch or "
            f"context, or fewer threads; `minillama info` tells what a model takes",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130


def train(options):
    from .cli.runs import no_run
    from .data.corpora import encode_corpus
    from .training.run import STATE_FILE, Run, check_folder, read_metrics, read_state
    from .training.trainer import Settings, objective

    given = vars(options)
    folder = Path(given.get("out") or Path("runs") / Path(os.path.realpath(given.get("data", "stories"))).stem)
    threads = check_threads(given["threads"], "--threads") if "threads" in given else None
    if options.resume and options.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite begins anew in its place; choose one of them")
    if options.resume:
        if not (folder / STATE_FILE).is_file():
            raise FileNotFoundError(no_run(folder, named="out" in given))
        state = read_state(folder)
        saved = {**state["config"], **state["settings"], **state["source"]}
        asked = {**FAMILIES[given["family"]], **given} if "family" in given else given
        for name, value in asked.items():
            value = sorted(value) if name == "bias" else value
            if name in saved and name != "data" and value != (sorted(saved[name]) if name == "bias" else saved[name]):
                option = "--" + name.replace("_", "-")
                raise ValueError(
                    f"the run in {folder} was started with {option} {saved[name]}, not {value}; it can only go on as "
                    f"it began. Leave {option} out, or start a new run in another folder"
                )
        source = {**state["source"], "data": given.get("data", state["source"]["data"])}
        _say_what_is_read(source["data"])
        run = Run.resume(folder, encode_corpus(**source), threads)
        print(f"resuming {folder} at step {run.optimizer.steps} of {run.settings.steps}")
        if run.model.workers.threads != state["threads"]:
            print(f"with {threads} threads, not {state['threads']} as before: the last bits of the weights will differ")
    else:
        source = {name: given.get(name, default) for name, (default, _) in _DATA_OPTIONS.items()}
        settings = Settings(**{name: given[name] for name in _TRAINING_OPTIONS if name in given})
        shape = {
            **FAMILIES[given.get("family", "llama")],
            **{name: given[name] for name in _MODEL_OPTIONS if name in given},
        }
        config = Config(vocab_size=1, **shape)  # a wrong shape is reported before the text is read
        check_folder(folder, options.overwrite)  # and so is a folder that something else lies in
        _say_what_is_read(source["data"])
        corpus = encode_corpus(**source, mask_token=objective(config).needs_mask_token)
        config = Config(corpus.tokenizer.vocab_size, **shape)
        run = Run.start(folder, config, settings, corpus, threads, options.overwrite)
        _describe_run(run)
    try:
        loss = run.train()
    except KeyboardInterrupt:
        print(f"\nstopped without saving; the last checkpoint is in {folder}", file=sys.stderr)
        return 130
    if loss is None:
        with suppress(OSError):  # the terminal may have gone, which is why it was stopped; all is saved
            if read_metrics(folder):
                _draw_loss(folder)
            on = command_line("train", ("--out", folder), "--resume")
            print(f"\nstopped at step {run.optimizer.steps}; continue with: {on}", flush=True)
        return exit_code(run.stopped_by)
    print(f"the model is in {folder}, {_draw_loss(folder)}")
    per_character = f", {run.corpus.per_character(loss):.4f} nats a character" if run.objective.predicts_text else ""
    print(f"validation loss {loss:.4f} nats a {run.unit}{per_character}")
    if run.floor is not None:
        floor = run.corpus.per_character(run.floor)
        print(f"the true entropy of the source is {floor:.4f} nats a character: no model does better on average")
    if run.model.config.causal:
        print(f"continue a text with: {command_line('sample', folder, ('--prompt', 'TEXT'))}")
    else:
        print(f"fill gaps with: {command_line('fill', folder, 'a text with ___ in it')}")


def _draw_loss(folder):
    """Draw the loss curve of a run; where it is, or what it needs, to be said after the place of the model."""
    try:
        from .analysis.plots import loss_curve
    except MissingExtra as error:
        again = command_line("train", ("--out", folder), "--resume")
        return f"without a loss curve: {error}, then {again}"
    return f"its loss curve in {loss_curve(folder)}"


def _say_what_is_read(data):
    from .data.corpora import what_is_read

    said = what_is_read(data)
    if said is not None:
        print(said, file=sys.stderr)


def _describe_run(run):
    corpus, model = run.corpus, run.model
    print(
        f"{len(corpus.train):,} training and {len(corpus.validation):,} validation tokens "
        f"({corpus.tokenizer.vocab_size} different), {model.parameters.flat.size:,} parameters, "
        f"{model.workers.threads} threads"
    )


def sample(options):
    from .generation.generate import generate

    model, tokenizer = _load_writer(options)
    prompt, end = list(tokenizer.encode(options.prompt, special=False)), tokenizer.end_of_text
    begin = tokenizer.begin_of_text
    if begin is not None:
        prompt = [begin, *prompt]
    elif not prompt:
        if b"\n" not in tokenizer.vocab:
            raise ValueError("this model has no token that a text begins with; give the beginning with --prompt")
        prompt = list(tokenizer.encode("\n"))
    check_ids(prompt, tokenizer, model.config.vocab_size)
    settings, ends = _published_settings(options, model)
    stop = {begin, end, *ends}  # where another text begins, this one has ended as well
    tokens = generate(
        model, prompt, options.max_tokens, **settings, seed=options.seed, stop=stop,
        sliding_window=options.sliding_window, vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
    stream, last = tokenizer.stream(), None
    for token in prompt:
        stream.feed(token)  # a token may be spelled in another way at the start of a text
    print(options.prompt, end="", flush=True)
    try:
        for last in tokens:
            if last not in stop:
                print(stream.feed(last), end="", flush=True)
    except KeyboardInterrupt:
        print()
        return 130
    print(stream.finish())
    if options.max_tokens is None and last not in stop:
        context = model.config.cached_context
        print(f"[the context of {context} tokens is full; --sliding-window goes on beyond it]", file=sys.stderr)


def chat(options):
    from .generation.chat import Conversation, converse
    from .generation.chat_templates import recognise

    if options.context is not None and options.context < 1:
        raise ValueError(f"--context must be at least 1; received {options.context}")
    streams.standard_input()
    model, tokenizer = _load_writer(options)
    template = options.template or recognise(options.model, tokenizer)
    settings, ends = _published_settings(options, model)
    conversation = Conversation(
        model, tokenizer, template, options.system, options.max_tokens, **settings, seed=options.seed,
        context=options.context, stop=ends,
    )  # fmt: skip
    try:
        converse(conversation)
    except KeyboardInterrupt:
        print()
        return 130


def _load_writer(options):
    """The model and the tokenizer of a command that writes text; ValueError for a model that cannot."""
    if options.max_tokens is not None and options.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1; received {options.max_tokens}")
    model, tokenizer = _load_with_tokenizer(options)
    if not model.config.causal:
        instead = command_line("fill", Path(options.model), "TEXT")
        raise ValueError(f"{options.model} fills gaps and writes no text; try {instead}")
    if options.int8:
        from .weights.quantize import quantize

        model = quantize(model)
    return model, tokenizer


def _published_settings(options, model):
    """How to draw: what was asked for, else what the model's files say; and the tokens that they say end a text."""
    from .checkpoint import generation_config

    said = generation_config.read(options.model, model.config.vocab_size)
    for note in said.notes:
        print(f"minillama: note: {note}", file=sys.stderr)
    asked = options.temperature, options.top_k, options.top_p, options.repetition_penalty
    return said.sampling(*asked), said.end


def _load_with_tokenizer(options):
    if options.threads is not None:
        check_threads(options.threads, "--threads")
    model, tokenizer = load(options.model, options.threads)
    if tokenizer is None:
        raise ValueError(
            f"{options.model} comes without a tokenizer, which turns text into tokens; put its file beside it"
        )
    try:
        check_tokenizer(tokenizer, model.config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{options.model}: {error}") from error
    return model, tokenizer


def fill(options):
    import numpy as np

    from .analysis.trace import prompt_ids
    from .generation.generate import fill
    from .tokenizers import BPETokenizer

    model, tokenizer = _load_with_tokenizer(options)
    if model.config.causal:
        instead = command_line("sample", Path(options.model), ("--prompt", "TEXT"))
        raise ValueError(f"{options.model} reads only what comes before a gap; try {instead}")
    if tokenizer.mask_token is None:
        raise ValueError(f"{options.model} has a tokenizer without a special token that marks a gap")
    if not options.gap:
        raise ValueError("--gap must not be empty: it is what marks a missing token in the text")
    mask = next(text for text, token in tokenizer.special_tokens.items() if token == tokenizer.mask_token)
    text = options.text.replace(options.gap, mask)
    if isinstance(tokenizer, BPETokenizer):  # a token of it brings the blank before it along, and so must a gap
        text = text.replace(" " + mask, mask)
    ids = prompt_ids(model, tokenizer, text)
    gaps = np.flatnonzero(ids == tokenizer.mask_token)
    if len(gaps) == 0:
        raise ValueError(f"the text has no gap; write {options.gap} where a token is missing")
    filled, probabilities = fill(model, ids, tokenizer.mask_token, tokenizer.vocab_size)
    print(tokenizer.decode(filled[~np.isin(filled, [tokenizer.begin_of_text, tokenizer.end_of_text])]))
    for place in gaps:
        print(f"{probabilities[place]:8.1%}  {tokenizer.decode(filled[place : place + 1])!r}", file=sys.stderr)


def inspect(options):
    from .analysis import plots  # noqa: F401, what figures need is said before any work
    from .analysis.trace import draw, drawn, lens_table, prompt_ids, trace

    model, tokenizer = _load_with_tokenizer(options)
    if not 1 <= options.top <= model.config.vocab_size:
        raise ValueError(
            f"--top must lie in [1, {model.config.vocab_size}], the tokens that there are; received {options.top}"
        )
    layers = range(model.config.layers) if options.layer is None else [options.layer]
    require_free(drawn(options.out, layers), options.overwrite, _OTHER)
    ids = prompt_ids(model, tokenizer, options.prompt)
    seen = trace(model, ids, layers=None if options.layer is None else [options.layer])
    gaps = [] if tokenizer.mask_token is None else [i for i, token in enumerate(ids) if token == tokenizer.mask_token]
    print(lens_table(model, tokenizer, seen, gaps[0] if gaps else len(ids) - 1, options.top))
    for path in draw(model, tokenizer, seen, options.out):
        print(path)


def perplexity(options):
    from tqdm import tqdm

    from .analysis.perplexity import (
        check_readable,
        check_windows,
        perplexity,
        pseudo_perplexity,
        require_causal,
        table,
    )

    model, tokenizer = _load_with_tokenizer(options)
    if not options.pseudo:
        require_causal(model)
    elif options.stride is not None:
        raise ValueError("pseudo-perplexity reads windows side by side; leave --stride out")
    context, stride = check_windows(model, options.context, options.stride)
    if options.int8:
        from .weights.quantize import quantize

        model = quantize(model)
    scores = []
    for path, size, text in check_readable(options.files):
        with tqdm(total=size, unit="B", unit_scale=True, desc=path, leave=False) as bar:

            def report(tokens, bar=bar):
                # Tokens can be longer than their text: an unknown one has a name, WordPiece puts blanks between words.
                read = len(tokenizer.decode_bytes(tokens))
                bar.update(read if bar.total is None else min(read, bar.total - bar.n))

            if options.pseudo:
                score = pseudo_perplexity(model, tokenizer, text, context, report)
            else:
                score = perplexity(model, tokenizer, text, context, stride, report)
        scores.append((path, score))
    print(table(scores))
    if options.pseudo:
        print(f"\npseudo-perplexity: each token is hidden in turn, and read from the others in its {context} tokens")
        return
    print(
        f"\nwindows of {context} tokens, {stride} apart: a token is scored by up to {context} tokens before it, and by "
        f"at least {context - stride + 1} after the first window"
    )


def compare(options):
    from .experiments.families import TITLES, Terms, compare, notes, table

    if Path(options.out).is_dir():
        raise IsADirectoryError(f"{options.out} is a folder, and the rows go to a file; give its name with --out")
    require_folders([options.out], "choose another place with --out")
    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = replace(Terms.settings, **_settings(given, _COMPARISON_SETTINGS))
    terms = Terms(context=options.context, settings=settings, tune=not options.untuned)
    processes = available_threads() if options.threads is None else check_threads(options.threads, "--threads")
    _say_what_is_read(options.data)
    rows = compare(options.data, options.seeds, terms, Path(options.out), options.vocab_size, processes)
    print(table(rows))
    print()
    print(notes(rows))
    for family, title in TITLES.items():
        text = next((row["text"] for row in rows if row["family"] == family and row["loss"] is not None), None)
        if text is not None:
            print(f"\n{title}:\n{text}")
    print(f"\nthe rows are in {options.out}")


def download(options):
    from .data.downloads import download

    try:
        folder, done, then = download(options.name, options.out, options.mirror)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    for file, digest, there in done:
        state = "was there already" if there else "received"
        checked = "as expected" if file.sha256 else f"{digest}, which was not known before"
        print(f"{folder / file.name}: {state}, sha256 {checked}")
    print(f"go on with: {then}")


def train_tokenizer(options):
    from .data.corpora import read_corpus
    from .tokenizers import BPETokenizer

    files = [Path(options.out) / name for name in ("tokenizer.json", "tokenizer_config.json")]
    require_no_other_model(options.out, [path.name for path in files], _OTHER)
    require_free(files, options.overwrite, _OTHER)
    _say_what_is_read(options.data)
    tokenizer = BPETokenizer.train(read_corpus(options.data, held_out=0).train, options.vocab_size)
    tokenizer.save(options.out)
    less = f": all that this text gives, of {options.vocab_size} asked for"
    print(f"{tokenizer.vocab_size} tokens in {options.out}{less if tokenizer.vocab_size < options.vocab_size else ''}")


def encode(options):
    from .tokenizers import load_tokenizer

    try:
        text = streams.standard_input().buffer.read().decode("utf-8") if options.text is None else options.text
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 at byte {error.start}; encode takes text in UTF-8") from error
    print(*load_tokenizer(options.tokenizer).encode(text))


def decode(options):
    from .tokenizers import load_tokenizer

    words = options.ids or streams.standard_input().read().split()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"decode takes token ids, whole numbers; received {' '.join(words)[:60]!r}")
    ids = [int(word) for word in words]
    print(load_tokenizer(options.tokenizer).decode(ids))


def convert(options):
    from .checkpoint.open import convert

    print(convert(options.source, options.target, options.format, options.tokenizer, options.int8, options.overwrite))


def info(options):
    from .catalogue.sizes import cache_bytes_per_token, flops_per_token, parameters, training_bytes, weight_bytes
    from .checkpoint.open import read_config
    from .parameters import parameter_shapes

    if options.model in PRESETS:
        config = PRESETS[options.model]
    elif Path(options.model).exists():
        config = read_config(options.model)
    else:
        raise ValueError(f"{options.model} is no file or folder, and {unknown('model', options.model, PRESETS)}")
    counts = parameters(config)
    for name, value in _described_fields(config):
        print(f"{name:<24}{value}")
    print()
    for name, shape in parameter_shapes(config).items():
        if not name.startswith("blocks.") or name.startswith("blocks.0."):  # the blocks are alike
            print(f"{name.replace('blocks.0', 'each block'):<32}{' x '.join(f'{size:,}' for size in shape)}")
    print()
    for part, count in counts.items():
        print(f"{part + ' parameters':<28}{count:>16,}{count / counts['total']:>9.1%}")
    print()
    held = {"int8": "  (with their scales)"}
    for kind, size in weight_bytes(config).items():
        print(f"{'weights in ' + kind:<24}{size / 1e6:>20,.1f} MB{held.get(kind, '')}")
    training = f"{'training, float32':<24}{training_bytes(config) / 1e6:>20,.1f} MB"
    print(f"{training}  (weights, gradient, two moments; one gradient more for each further thread)")
    if config.causal:
        print(f"{'cache a token, float32':<24}{cache_bytes_per_token(config):>20,} bytes")
    forward = flops_per_token(config)
    print(f"{'FLOPs a token':<24}{forward:>20,}  forward, at {config.context} tokens; three times that in training")


def _described_fields(config):
    """[(name, text)] of the fields of a config that have a value and an effect."""
    rotated = POSITIONS[config.position].rotation is not None
    for name, value in config.to_dict().items():
        if value is None or (name.startswith("rope_") and not rotated):
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, tuple):
            value = ", ".join(value) or "none"
        yield name, value


def model_table(options):
    from .catalogue.table import FORMATS, model_rows

    rows = model_rows(options.names)
    if options.figure:
        from .analysis.plots import parameters_and_cache

        require_free([options.figure], options.overwrite, "choose another name with --figure")
    print(FORMATS[options.format](rows))
    if options.figure:
        print(f"the figure is in {parameters_and_cache(rows, options.figure)}", file=sys.stderr)


def bench(options):
    if missing_kernels() is not None:
        raise ValueError(f"bench measures the Numba kernels, which cannot run here: {missing_kernels()}")
    from .bench.parts import ON_REQUEST, PARTS, Bench
    from .bench.report import save, table
    from .bench.shapes import SHAPES

    for kind, given, known in (("part", options.parts, PARTS), ("shape", options.shapes, SHAPES)):
        for name in given:
            if name not in known:
                raise ValueError(unknown(kind, name, known))
    if options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1; received {options.rounds}")
    threads = available_threads() if options.threads is None else check_threads(options.threads, "--threads")
    parts = options.parts or [part for part in PARTS if part not in ON_REQUEST]
    _require_free_for_bench(options, parts)
    shapes = {name: SHAPES[name] for name in options.shapes or SHAPES}
    made = Bench(shapes, threads, options.rounds, options.torch)
    rows = made.run(parts)
    print(table(rows, made.machine))
    if options.json:
        save(rows, made.machine, options.json)
    if options.figures:
        from .bench.plots import draw

        for path in draw(rows, made.machine, options.figures):
            print(path)


def _require_free_for_bench(options, parts):
    files = [options.json] if options.json else []
    if options.figures:
        from .bench.plots import drawn

        files += drawn(options.figures, parts)
    require_free(files, options.overwrite, "choose another place with --json or --figures")


def ablate(options):
    from .experiments.jobs import Protocol
    from .experiments.plots import draw, drawn
    from .experiments.report import report
    from .experiments.results import of, read
    from .experiments.scheduler import run, sources
    from .experiments.variants import STUDIES

    reporting = options.studies[:1] == ["report"]
    studies = [] if reporting else list(dict.fromkeys(options.studies))
    studies = studies or list(STUDIES)
    folders = (options.studies[1:] if reporting else []) or [options.out]
    out = Path(options.figures or (folders[0] if not reporting or Path(folders[0]).is_dir() else "."))
    if options.shard[1] == 1:
        require_free(
            [out / "report.md", *drawn(out, studies)], options.overwrite, "choose another folder with --figures"
        )
    if reporting:
        results = read(folders)
    else:
        for study in options.studies:  # before the text is read and encoded
            if study not in STUDIES:
                raise ValueError(unknown("study", study, [*STUDIES, "report"]))
        given = {name: value for name, value in vars(options).items() if value is not None}
        settings = replace(Protocol.settings, **_settings(given, _ABLATION_SETTINGS))
        shape = {name: given[name] for name in _ABLATION_SHAPE if name in given}
        require_folders([Path(options.out) / "results.jsonl"], _OTHER)
        protocol = Protocol(**shape, settings=settings, equal=options.equal)
        processes = available_threads() if options.jobs is None else check_threads(options.jobs, "--jobs")
        for data in options.corpora:
            _say_what_is_read(data)
        corpora = sources(options.corpora, options.tokenizer, options.vocab_size)
        results = run(protocol, studies, corpora, options.seeds, options.out, processes, options.shard).by_key
        results = of(results, corpora, options.seeds)  # the folder may have more than was asked for
        if options.shard[1] > 1:
            print(f"shard done; when all are: {command_line('ablate', 'report', Path(options.out))}")
            return
    if not results:
        raise ValueError(f"there are no results in {', '.join(map(str, folders))}")
    text = report(results, studies)
    print(text)
    write_text(out / "report.md", text)
    for path in [out / "report.md", *draw(results, out, studies)]:
        print(path)


def _parser():
    parser = Parser("minillama", description="Train, sample and inspect tiny LLaMAs, in NumPy.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, function, text, group=commands, **defaults):
        made = group.add_parser(name, help=text, description=text, **defaults)
        made.set_defaults(command=function)
        return made

    def threads(made, **rest):
        text = f"processors to use (default: all, here {available_threads()})"
        made.add_argument("--threads", type=int, metavar="N", help=text, **rest)

    def overwrite(made, text="replace the files that are there", **rest):
        made.add_argument("--overwrite", action="store_true", help=text, **rest)

    # Options that are not given stay out of the namespace: --resume must tell them from those that are.
    made = command("train", train, "train a model on text", argument_default=argparse.SUPPRESS)
    group = made.add_argument_group("data")
    for name, (default, text) in _DATA_OPTIONS.items():
        group.add_argument(_flag(name), type=type(default), metavar=_metavar(type(default)), help=_help(text, default))
    group = made.add_argument_group("run")
    group.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/ and the name of the data)")
    group.add_argument("--resume", action="store_true", default=False, help="go on with the run in its folder")
    overwrite(group, "begin anew in the place of the run that is there", default=False)
    threads(group)
    group = made.add_argument_group("model")
    text = "whose choices the model has where no other option asks for something else"
    group.add_argument("--family", choices=list(FAMILIES), help=_help(text, "llama"))
    _add_fields(group, Config, _MODEL_OPTIONS)
    from .training.trainer import Settings

    _add_fields(made.add_argument_group("training"), Settings, _TRAINING_OPTIONS)

    from .checkpoint.generation_config import TEMPERATURE, TOP_P

    def writer(made, writes="tokens to write"):
        """The options of a command that writes text with a model."""
        said = "what the model's files say, else "
        text = _help("above 0; lower is more predictable", f"{said}{TEMPERATURE}")
        made.add_argument("--temperature", type=float, metavar="X", help=text)
        text = _help("choose among the K likeliest tokens; 1 takes the likeliest each time", f"{said}all")
        made.add_argument("--top-k", type=int, metavar="K", help=text)
        text = _help("choose among the likeliest tokens that hold P of the probability", f"{said}{TOP_P}")
        made.add_argument("--top-p", type=float, metavar="P", help=text)
        text = "make tokens that occurred less likely, by dividing their logits; about 1.2 helps against loops"
        made.add_argument("--repetition-penalty", type=float, metavar="X", help=_help(text, f"{said}1, none"))
        made.add_argument("--seed", type=int, default=0, metavar="N", help=_help("of the random choices", 0))
        made.add_argument("--max-tokens", type=int, metavar="N", help=_help(writes, "what fits the context"))
        text = "round the weights to 8 bits: a quarter of the memory, faster"
        made.add_argument("--int8", action="store_true", help=text)
        threads(made)

    made = command("sample", sample, "continue a text with a model")
    made.add_argument("model", metavar="MODEL", help=_MODEL)
    text = "the text to continue (default: none, the model begins)"
    made.add_argument("--prompt", default="", metavar="TEXT", help=text)
    made.add_argument(
        "--sliding-window",
        action="store_true",
        help="go on beyond the context, forgetting the older half of the text when it is full, until the model ends "
        "its text or --max-tokens are written",
    )
    writer(made)

    from .generation.chat import COMMANDS, CONTEXT
    from .generation.chat_templates import TEMPLATES

    text = f"In the conversation: {'; '.join(map(' '.join, COMMANDS.items()))}."
    made = command("chat", chat, "talk with a model that was taught to answer; a line is a question", epilog=text)
    made.add_argument("model", metavar="MODEL", help=_MODEL)
    text = "how a conversation is written down for the model (default: what its files tell)"
    made.add_argument(
        "--template", type=_named("chat format", TEMPLATES), metavar="NAME", help=f"{text}: {', '.join(TEMPLATES)}"
    )
    made.add_argument("--system", metavar="TEXT", help="system prompt (default: the one of the template, if any)")
    text = f"tokens of the conversation that are kept, at most (default: the model's context, at most {CONTEXT})"
    made.add_argument("--context", type=int, metavar="N", help=text)
    writer(made, "tokens of an answer, at most")

    made = command("fill", fill, "fill the gaps of a text with a bidirectional model")
    made.add_argument("model", metavar="MODEL", help=_MODEL)
    made.add_argument("text", metavar="TEXT", help="the text, with a mark for each token that is missing")
    made.add_argument("--gap", default="___", metavar="MARK", help=_help("the mark", "___"))
    threads(made)

    text = "attention maps, lengths of the residual stream and the logit lens of a model that reads a prompt"
    made = command("inspect", inspect, text)
    made.add_argument("model", metavar="MODEL", help=_MODEL)
    made.add_argument("--prompt", required=True, metavar="TEXT", help="the text to read; special tokens in it count")
    made.add_argument("--out", required=True, metavar="DIR", help="folder that receives the figures, as PNG")
    overwrite(made, "replace the figures that are there")
    text = "layer whose attention is drawn, from 0 (default: all)"
    made.add_argument("--layer", type=int, metavar="N", help=text)
    made.add_argument("--top", type=int, default=5, metavar="N", help=_help("tokens to print for each layer", 5))
    threads(made)

    made = command("perplexity", perplexity, "how well a model predicts text files, by token and by byte")
    made.add_argument("model", metavar="MODEL", help=_MODEL)
    text = (
        "UTF-8 text files, or - for standard input, each scored by itself; <|endoftext|> in a file stands between "
        "documents, where the tokenizer has it"
    )
    made.add_argument("files", nargs="+", metavar="FILE", help=text)
    text = "tokens in a window (default: the model's context, at most 2048)"
    made.add_argument("--context", type=int, metavar="N", help=text)
    text = "tokens from window to window; fewer give every token more context and take longer (default: half a window)"
    made.add_argument("--stride", type=int, metavar="N", help=text)
    text = "of a bidirectional model: hide each token in turn, and predict it from those around it"
    made.add_argument("--pseudo", action="store_true", help=text)
    made.add_argument("--int8", action="store_true", help="round the weights to 8 bits, as sample does")
    threads(made)

    from .experiments.families import Terms

    made = command("compare", compare, "train a tiny LLaMA, GPT-2 and BERT on the same text, and see what each can do")
    made.add_argument("data", nargs="?", default="stories", metavar="DATA", help="as for train (default: stories)")
    made.add_argument("--seeds", type=int, default=3, metavar="N", help=_help("seeds 0 to N - 1", 3))
    made.add_argument("--context", type=int, default=256, metavar="N", help=_help("longest sequence, in tokens", 256))
    made.add_argument("--vocab-size", type=int, default=1024, metavar="N", help=_help("tokens of bpe", 1024))
    texts = {**_TRAINING_OPTIONS, "lr": "peak learning rate in the middle of the grid that is tried for each family"}
    _add_fields(made, Terms.settings, {name: texts[name] for name in _COMPARISON_SETTINGS})
    text = "train all families with the learning rate --lr, in a third of the time that choosing one for each takes"
    made.add_argument("--untuned", action="store_true", help=text)
    text = "file that each result is added to as soon as it is there; what it has already is not done again"
    made.add_argument("--out", default="comparison.jsonl", metavar="FILE", help=_help(text, "comparison.jsonl"))
    text = f"processors to use, one for each training (default: all, here {available_threads()})"
    made.add_argument("--threads", type=int, metavar="N", help=text)

    from .data.downloads import DOWNLOADS

    made = command("download", download, "fetch a model or a text from its public address, and check what was received")
    text = f"one of {', '.join(DOWNLOADS)}, or hf:OWNER/REPO, a model on Hugging Face"
    made.add_argument("name", metavar="NAME", help=text)
    made.add_argument("--out", metavar="DIR", help="folder that receives the files (default: downloads/NAME)")
    text = "address that takes the place of scheme and host (default: Hugging Face and GitHub)"
    made.add_argument("--mirror", metavar="URL", help=text)

    text = "train a tokenizer, encode and decode with one"
    made = commands.add_parser("tokenizer", help=text, description=text)
    group = made.add_subparsers(metavar="COMMAND", required=True)
    made = command("train", train_tokenizer, "train a byte-level BPE tokenizer", group)
    made.add_argument("data", metavar="FILE", help="a UTF-8 text file, a folder of text files, or stories")
    made.add_argument("--vocab-size", type=int, default=1024, metavar="N", help=_help("tokens, at most", 1024))
    made.add_argument("--out", metavar="DIR", required=True, help="folder that receives tokenizer.json")
    overwrite(made, "replace the tokenizer that is there")
    made = command("encode", encode, "turn text into token ids", group)
    made.add_argument("tokenizer", metavar="PATH", help="a tokenizer's file, or a folder that has one")
    text = "the text; special tokens in it count (default: what comes in on standard input)"
    made.add_argument("text", nargs="?", metavar="TEXT", help=text)
    made = command("decode", decode, "turn token ids into text", group)
    made.add_argument("tokenizer", metavar="PATH", help="a tokenizer's file, or a folder that has one")
    made.add_argument("ids", nargs="*", metavar="ID", help="token ids (default: from standard input)")

    from .checkpoint.open import FILE_FORMATS, WRITTEN

    made = command("convert", convert, "write a model in another format, with its tokenizer")
    kinds = "; ".join(row.describes for row in FILE_FORMATS.values())
    made.add_argument("source", metavar="SRC", help=f"the model: {kinds}")
    made.add_argument("target", metavar="DST", help="where to write it: a folder, or a file that ends in .bin")
    text = "of what is written (default: llama2c where DST ends in .bin, else huggingface)"
    made.add_argument("--format", choices=WRITTEN, help=text)
    text = "file or folder of the tokenizer (default: what lies in the folder SRC, or beside the file)"
    made.add_argument("--tokenizer", metavar="PATH", help=text)
    made.add_argument("--int8", action="store_true", help="round the weights to 8 bits, in a file of llama2.c")
    overwrite(made, "replace the model that is there")

    made = command(
        "bench", bench, "measure speed and memory, in turn with PyTorch where it is installed, and the machine's limits"
    )
    parts = "training, prefill, decoding, attention, length, matmul, elementwise, checkpoint"
    text = _help(f"what to measure: {parts}", "all but checkpoint, which writes 2.5 GB")
    made.add_argument("parts", nargs="*", metavar="PART", help=text)
    text = "models to measure: char, stories260K, stories15M, long, 110M"
    made.add_argument("--shapes", nargs="+", default=(), metavar="NAME", help=_help(text, "all"))
    text = "turns of each contestant; fewer, but at least 3, where a measurement takes longer than 10 seconds"
    made.add_argument("--rounds", type=int, default=6, metavar="N", help=_help(text, 6))
    made.add_argument("--no-torch", dest="torch", action="store_false", help="leave PyTorch out")
    made.add_argument("--json", metavar="FILE", help="also write everything that was measured there")
    made.add_argument("--figures", metavar="DIR", help="also draw figures there, for the parts that were measured")
    overwrite(made)
    threads(made)

    from .experiments.jobs import EQUAL, Protocol
    from .experiments.variants import STUDIES

    text = "compare variants of a LLaMA, trained on equal terms, over seeds"
    made = command("ablate", ablate, text)
    text = f"what to compare: {', '.join(STUDIES)}; or: report DIR..., tables and figures of results"
    made.add_argument("studies", nargs="*", metavar="STUDY", help=_help(text, "all"))
    group = made.add_argument_group("data")
    text = "files, folders, or stories"
    group.add_argument("--corpora", nargs="+", default=["stories"], metavar="DATA", help=_help(text, "stories"))
    text = "bpe or char (default: char for a file, else bpe)"
    group.add_argument("--tokenizer", metavar="NAME", help=text)
    group.add_argument("--vocab-size", type=int, default=512, metavar="N", help=_help("tokens of bpe", 512))
    group = made.add_argument_group("run")
    group.add_argument("--out", default="results", metavar="DIR", help=_help("folder of the results", "results"))
    group.add_argument("--figures", metavar="DIR", help="folder of report and figures (default: that of the results)")
    overwrite(group, "replace report and figures that are there; results are kept and added to")
    group.add_argument("--seeds", type=int, default=3, metavar="N", help=_help("seeds 0 to N - 1 of each variant", 3))
    text = "made equal between variants: parameters, by the feed-forward width, or compute, by the steps"
    group.add_argument("--equal", choices=EQUAL, default=Protocol.equal, help=_help(text, Protocol.equal))
    text = f"processes, each on one processor (default: all, here {available_threads()})"
    group.add_argument("--jobs", type=int, metavar="N", help=text)
    text = "do part i of n only, for a cluster's job array (default: 1/1, all)"
    group.add_argument("--shard", type=_shard, default=(1, 1), metavar="i/n", help=text)
    _add_fields(made.add_argument_group("model"), Protocol, {name: _MODEL_OPTIONS[name] for name in _ABLATION_SHAPE})
    texts = {**_TRAINING_OPTIONS, "lr": "peak learning rate in the middle of the grid that is tried for each variant"}
    _add_fields(
        made.add_argument_group("training"), Protocol.settings, {name: texts[name] for name in _ABLATION_SETTINGS}
    )

    made = command("info", info, "shape, parameters, memory and arithmetic of a model")
    made.add_argument("model", metavar="MODEL|NAME", help=f"a model as for sample, or one of: {', '.join(PRESETS)}")

    made = command("table", model_table, "what is stated of the models beside what follows from their shapes")
    text = f"models to show, of {', '.join(PRESETS)}"
    made.add_argument("names", nargs="*", metavar="NAME", help=_help(text, "all but the tiny ones"))
    made.add_argument(
        "--format", choices=("text", "markdown", "csv"), default="text", help=_help("of the table", "text")
    )
    made.add_argument("--figure", metavar="FILE", help="also draw parameters and cache there, as PNG")
    overwrite(made, "replace the figure that is there")
    return parser


def _named(kind, known):
    """The type of an option that takes one of the known names."""

    def name(text):
        if text not in known:
            raise argparse.ArgumentTypeError(unknown(kind, text, known))
        return text

    return name


def _shard(text):
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"a shard is i/n, such as 1/8; received {text!r}")
    return int(part), int(parts)


def _add_fields(group, source, options):
    """One option for each listed field of a dataclass or an instance of one, with the field's type and default."""
    for name, text in options.items():
        default = getattr(source, name)
        if name in SWITCHES:
            group.add_argument(_flag(name), choices=list(SWITCHES[name]), help=_help(text, default))
        elif name == "bias":
            group.add_argument(_flag(name), nargs="*", choices=BIASES, help=_help(text, "none"))
        elif isinstance(default, bool):
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, help=_help(text, "no"))
        else:
            kind = int if default is None else type(default)
            text = text if default is None or "(default:" in text else _help(text, default)
            group.add_argument(_flag(name), type=kind, metavar=_metavar(kind), help=text)


def _settings(given, names):
    """The changes to Settings that options ask for; the warm-up is that of the steps unless one is given."""
    return {"warmup": None, **{name: given[name] for name in names if name in given}}


def _flag(name):
    return "--" + name.replace("_", "-")


def _metavar(kind):
    return {int: "N", float: "X", str: "NAME"}[kind]


def _help(text, default):
    return f"{text} (default: {default})"


if __name__ == "__main__":
    sys.exit(main())
