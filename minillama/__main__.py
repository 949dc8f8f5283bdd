"""The command line: python -m minillama COMMAND; `python -m minillama --help` lists the commands."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
