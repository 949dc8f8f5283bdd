"""minillama table: what is stated of the models beside what follows from their shapes."""

import sys

from ..catalogue.presets import PRESETS
from ..catalogue.table import STYLES, model_rows
from ..files import require_free
from .options import add_overwrite, with_default


def add_arguments(parser):
    text = with_default(f"models to show, of {', '.join(PRESETS)}", "all but the tiny ones")
    parser.add_positional("names", also=("name", "model", "models"), nargs="*", metavar="NAME", help=text)
    text = with_default("of the table", "text")
    parser.add_argument("--format", choices=list(STYLES), default="text", help=text)
    parser.add_argument("--figure", metavar="FILE", help="also draw parameters and cache there, as PNG")
    add_overwrite(parser, "replace the figure that is there")


def run(options):
    rows = model_rows(options.names)
    if options.figure:
        from ..analysis.plots import parameters_and_cache

        require_free([options.figure], options.overwrite, "choose another name with --figure")
    print(STYLES[options.format](rows))
    if options.figure:
        print(f"the figure is in {parameters_and_cache(rows, options.figure)}", file=sys.stderr)
