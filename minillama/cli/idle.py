"""Options that are refused where they stand: what would change nothing, and names that mean two things.

The file of a command has them. IDLE lists (names of options, reason(options) -> why no value of them has an effect, or
None), and unclear(options) yields (name of an option, message); WITHOUT_STORIES says what to write for the built-in
source where its name is that of a file too. An option counts only where it was given; a default never does.
"""

from pathlib import Path


def refuse(options):
    """ValueError for the first of the given options of a command that would change nothing, or is not clear."""
    for name, why in _unclear(options):
        if name in options.given:
            raise ValueError(why)
    if getattr(options, "resume", False):  # there the options are compared with those of the run
        return
    for names, reason in getattr(options.command, "IDLE", ()):
        given = [name for name in names if name in options.given]
        why = reason(options) if given else None
        if why:
            raise ValueError(f"{options.flags[given[0]]} has no effect here: {why}. Leave it out")


def _unclear(options):
    """(option, message) for names that are those of something built in and of a file or folder here."""
    data = getattr(options, "corpora", [getattr(options, "data", None)])
    if "stories" in data and Path("stories").exists():
        kind = kind_of("stories")
        instead = getattr(options.command, "WITHOUT_STORIES", "give the command in another folder")
        yield (
            "corpora" if hasattr(options, "corpora") else "data",
            f"'stories' is the name of the built-in source, and there is a {kind} of that name here. Write ./stories "
            f"for the {kind}; for the source {instead}",
        )
    if hasattr(options.command, "unclear"):
        yield from options.command.unclear(options)


def kind_of(path):
    return "folder" if Path(path).is_dir() else "file"


def by_characters(options):
    """Why --vocab-size has no effect beside --tokenizer char, or None."""
    if getattr(options, "tokenizer", None) == "char":
        return "it is the size of bpe's vocabulary, and char has a token for each different character of the text"
