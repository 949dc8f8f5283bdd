"""minillama bench: measure speed and memory."""

from ..backend import missing_kernels
from ..bench import shapes
from ..files import require_free
from ..messages import unknown
from ..runtime.workers import available_threads, check_threads
from .options import add_overwrite, add_threads, with_default


def add_arguments(parser):
    parts = "training, prefill, decoding, attention, length, matmul, elementwise, checkpoint"
    text = with_default(f"what to measure: {parts}", "all but checkpoint, which writes 2.5 GB")
    parser.add_positional("parts", also=("part",), nargs="*", metavar="PART", help=text)
    text = with_default(f"models to measure: {', '.join(shapes.SHAPES)}", "all")
    parser.add_argument("--shapes", nargs="+", default=(), metavar="NAME", help=text)
    text = "turns of each contestant; fewer, but at least 3, where a measurement takes longer than 10 seconds"
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help=with_default(text, 6))
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave PyTorch out")
    parser.add_argument("--json", metavar="FILE", help="also write everything that was measured there")
    text = "also draw figures there, for the parts that were measured"
    parser.add_argument("--figures", metavar="DIR", help=text)
    add_overwrite(parser)
    add_threads(parser)


def run(options):
    if missing_kernels() is not None:
        raise ValueError(f"bench measures the Numba kernels, which cannot run here: {missing_kernels()}")
    from ..bench.parts import ON_REQUEST, PARTS, Bench
    from ..bench.report import save, table

    for kind, given, known in (("part", options.parts, PARTS), ("shape", options.shapes, shapes.SHAPES)):
        for name in given:
            if name not in known:
                raise ValueError(unknown(kind, name, known))
    if options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1; received {options.rounds}")
    threads = available_threads() if options.threads is None else check_threads(options.threads, "--threads")
    parts = options.parts or [part for part in PARTS if part not in ON_REQUEST]
    _require_free(options, parts)
    chosen = {name: shapes.SHAPES[name] for name in options.shapes or shapes.SHAPES}
    made = Bench(chosen, threads, options.rounds, options.torch)
    rows = made.run(parts)
    print(table(rows, made.machine))
    if options.json:
        save(rows, made.machine, options.json)
    if options.figures:
        from ..bench.plots import draw

        for path in draw(rows, made.machine, options.figures):
            print(path)


def _require_free(options, parts):
    files = [options.json] if options.json else []
    if options.figures:
        from ..bench.plots import drawn

        files += drawn(options.figures, parts)
    require_free(files, options.overwrite, "choose another place with --json or --figures")


# Options that change nothing


def _parts_without(*parts, what):
    def reason(options):
        if options.parts and set(options.parts) <= set(parts):
            return f"{what} has no part in {', '.join(options.parts)}"

    return reason


def _not_measured(options):
    sizes = {"prefill": "prompt", "decoding": "decoded"}  # a part: what a shape that it measures has
    if options.parts and set(options.parts) <= sizes.keys():
        wanted = [sizes[part] for part in options.parts]
        having = [name for name, shape in shapes.SHAPES.items() if any(getattr(shape, size) for size in wanted)]
        if not set(having) & set(options.shapes):
            return f"{', '.join(options.parts)} is measured at {', '.join(having)} only"


IDLE = [
    (("shapes",), _parts_without("length", "elementwise", "checkpoint", what="the shape of a model")),
    (("shapes",), _not_measured),
    (("torch",), _parts_without("matmul", "elementwise", "checkpoint", what="PyTorch")),
]
