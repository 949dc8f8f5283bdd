"""minillama ablate: compare variants of a LLaMA, trained on equal terms."""

from pathlib import Path

from ..config import Config
from ..experiments.jobs import Protocol
from ..experiments.variants import STUDIES, name_of, variants
from ..files import require_folders, require_free, write_text
from ..messages import command_line, unknown
from ..runtime.workers import available_threads, check_threads
from ..training.trainer import Settings
from .idle import by_characters
from .inputs import say_what_is_read
from .options import OTHER_FOLDER, add_fields, add_overwrite, changed, with_default
from .values import part

_SHAPE = ("dim", "layers", "heads", "context")
_SETTINGS = ("steps", "batch_size", "lr", "warmup", "lr_floor", "weight_decay", "clip", "init_std")
WITHOUT_STORIES = "leave --corpora out"


def add_arguments(parser):
    text = f"what to compare: {', '.join(STUDIES)}; or: report DIR..., tables and figures of results"
    parser.add_positional("studies", also=("study",), nargs="*", metavar="STUDY", help=with_default(text, "all"))
    group = parser.add_argument_group("data")
    text = with_default("files, folders, or stories", "stories")
    group.add_argument("--corpora", nargs="+", default=["stories"], metavar="DATA", help=text)
    text = "bpe or char (default: char for a file, else bpe)"
    group.add_argument("--tokenizer", metavar="NAME", help=text)
    group.add_argument("--vocab-size", type=int, default=512, metavar="N", help=with_default("tokens of bpe", 512))
    group = parser.add_argument_group("run")
    text = with_default("folder of the results", "results")
    group.add_argument("--out", default="results", metavar="DIR", help=text)
    group.add_argument("--figures", metavar="DIR", help="folder of report and figures (default: that of the results)")
    add_overwrite(group, "replace report and figures that are there; results are kept and added to")
    text = with_default("only variants that change these fields of LLaMA, such as feed_forward, and no other", "all")
    group.add_argument("--only", nargs="+", metavar="FIELD", help=text)
    text = with_default("seeds 0 to N - 1 of each variant", 3)
    group.add_argument("--seeds", type=int, default=3, metavar="N", help=text)
    add_fields(group, Protocol)
    text = f"processes, each on one processor (default: all, here {available_threads()})"
    group.add_argument("--jobs", type=int, metavar="N", help=text)
    text = "do part i of n only, for a cluster's job array (default: 1/1, all)"
    group.add_argument("--part", type=part, default=(1, 1), metavar="i/n", help=text)
    add_fields(parser.add_argument_group("model"), Config, _SHAPE, Protocol)
    text = "peak learning rate in the middle of the grid that is tried for each variant"
    add_fields(parser.add_argument_group("training"), Settings, _SETTINGS, Protocol.settings, lr=text)


def run(options):
    from ..experiments import results, scheduler
    from ..experiments.plots import draw, drawn
    from ..experiments.report import report

    reporting = options.studies[:1] == ["report"]
    studies = [] if reporting else list(dict.fromkeys(options.studies))
    studies = studies or list(STUDIES)
    folders = (options.studies[1:] if reporting else []) or [options.out]
    out = Path(options.figures or (folders[0] if not reporting or Path(folders[0]).is_dir() else "."))
    if options.part[1] == 1:
        require_free(
            [out / "report.md", *drawn(out, studies)], options.overwrite, "choose another folder with --figures"
        )
    if reporting:
        found = results.read(folders)
    else:
        for study in options.studies:  # before the text is read and encoded
            if study not in STUDIES:
                raise ValueError(unknown("study", study, [*STUDIES, "report"]))
        settings = changed(Protocol.settings, options, _SETTINGS)
        asked = {name: getattr(options, name) for name in (*_SHAPE, "equal") if getattr(options, name) is not None}
        require_folders([Path(options.out) / "results.jsonl"], OTHER_FOLDER)
        protocol = Protocol(**asked, settings=settings)
        names = {name_of(changes) for changes in variants(studies, protocol.base(vocab_size=1), options.only)}
        processes = available_threads() if options.jobs is None else check_threads(options.jobs, "--jobs")
        for data in options.corpora:
            say_what_is_read(data)
        corpora = scheduler.sources(options.corpora, options.tokenizer, options.vocab_size)
        terms = protocol, studies, corpora, options.seeds, options.out, processes, options.part
        done = scheduler.run(*terms, only=options.only).by_key
        found = results.of(done, corpora, options.seeds, names)  # the folder may have more than was asked for
        if options.part[1] > 1:
            print(f"this part is done; when all are: {command_line('ablate', 'report', Path(options.out))}")
            return
    if not found:
        raise ValueError(f"there are no results in {', '.join(map(str, folders))}")
    text = report(found, studies)
    print(text)
    write_text(out / "report.md", text)
    for path in [out / "report.md", *draw(found, out, studies)]:
        print(path)


# Options that change nothing, and a name that means two things


def _all_by_characters(options):
    corpora = [str(corpus) for corpus in options.corpora]
    if options.tokenizer is None and all(corpus != "stories" and Path(corpus).is_file() for corpus in corpora):
        return "single files are read by characters unless --tokenizer bpe is given"
    return by_characters(options)


def _reporting(options):
    if options.studies[:1] == ["report"]:
        return "a report shows results that are there, and trains nothing"


def _reporting_on_folders(options):
    if options.studies[:1] == ["report"] and options.studies[1:]:
        return "the report is on the folders that are named"


def _in_a_part(options):
    if options.part[1] > 1:
        return "a part of the jobs has no figures; draw them with minillama ablate report when all parts are done"


_OF_TRAINING = ("corpora", "tokenizer", "vocab_size", "only", "seeds", "equal", "jobs", "part", *_SHAPE, *_SETTINGS)
IDLE = [
    (_OF_TRAINING, _reporting),
    (("out",), _reporting_on_folders),
    (("vocab_size",), _all_by_characters),
    (("figures",), _in_a_part),
]


def unclear(options):
    if options.studies == ["report"] and any(Path("report").glob("*.jsonl")):
        yield (
            "studies",
            "there is a folder called report with results here. Write minillama ablate report report for a report on "
            f"it, or name another folder, as in {command_line('ablate', 'report', Path(options.out))}",
        )
