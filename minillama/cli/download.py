"""minillama download: fetch a model or a text from its public address."""

import sys

from ..data.downloads import DOWNLOADS, download


def add_arguments(parser):
    parser.surplus = "--out"
    text = f"one of {', '.join(DOWNLOADS)}, or hf:OWNER/REPO, a model on Hugging Face"
    parser.add_positional("name", also=("model", "repo"), metavar="NAME", help=text)
    parser.add_argument("--out", metavar="DIR", help="folder that receives the files (default: downloads/NAME)")
    text = "address that takes the place of scheme and host (default: Hugging Face and GitHub)"
    parser.add_argument("--mirror", metavar="URL", help=text)


def run(options):
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
