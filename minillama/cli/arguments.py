"""The parser of the command line: argparse, with errors that say what was probably meant.

A command's words are looked at before argparse takes them, so that an option that does not exist, a word too many or a
missing value is explained under the usage of the command that it was given to. Options are never guessed: `--vocab` is
an error that names --vocab-size, as a new option could give it another meaning one day.
"""

import argparse
import re
import sys
from pathlib import Path

from ..messages import closest, command_line, quoted
from .values import number, whole_number

# What text programs and web pages put in the place of a hyphen: hyphens, figure dash, en and em dash, bar, minus.
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_TO_HYPHEN = str.maketrans(dict.fromkeys(_DASHES, "-"))
_QUOTES = "\u2018\u201c\u201e\u201a\u00ab\u201d"
_SWITCHED = ("yes", "no", "true", "false", "on", "off", "1", "0")  # as if a flag had a value
_MAY_BE_EMPTY = ("TEXT", "MARK")  # the other values are names and paths: an empty path is the folder that one is in
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf|-nan", re.IGNORECASE)

# What other programs call an option, and what it is called here.
_SYNONYMS = {
    "activation": "feed-forward",
    "adam-beta1": "beta1",
    "adam-beta2": "beta2",
    "block-size": "context",
    "corpus": "data",
    "dataset": "data",
    "epochs": "steps",
    "eval-interval": "eval-every",
    "file": "data",
    "grad-accumulation-steps": "micro-batches",
    "grad-clip": "clip",
    "gradient-accumulation-steps": "micro-batches",
    "hidden-size": "dim",
    "input": "data",
    "intermediate-size": "ffn",
    "iters": "steps",
    "learning-rate": "lr",
    "length": "max-tokens",
    "max-grad-norm": "clip",
    "max-iters": "steps",
    "max-length": "max-tokens",
    "max-new-tokens": "max-tokens",
    "max-seq-len": "context",
    "max-steps": "steps",
    "min-lr": "lr-floor",
    "n-embd": "dim",
    "n-head": "heads",
    "n-heads": "heads",
    "n-kv-heads": "kv-heads",
    "n-layer": "layers",
    "n-layers": "layers",
    "num-heads": "heads",
    "num-layers": "layers",
    "num-samples": "max-tokens",
    "num-tokens": "max-tokens",
    "o": "out",
    "output": "out",
    "output-dir": "out",
    "processes": "jobs",
    "quantize": "int8",
    "seq-len": "context",
    "sequence-length": "context",
    "text": "data",
    "tie-embeddings": "tied",
    "warmup-iters": "warmup",
    "warmup-steps": "warmup",
    "workers": "threads",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser of which every command has hints of its own

    What it parses also has `line`, the name of the command ("tokenizer train"), `given`, the names of what was given
    for it and not taken from a default, and `flags`, {name: how its option is written}. fill: a function of the parser
    that adds its arguments, when they are needed; what it imports for them is not imported for other commands.
    """

    def __init__(self, *args, fill=None, **kwargs):
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.register("type", int, whole_number)
        self.register("type", float, number)
        self.above = None  # the parser whose command this is
        # What a word too many is said to be: the option that it is probably the value of, or a sentence on it.
        self.surplus = ""
        self.meant = {}  # {name of an option that there is not: what stands without one and is meant by it}
        self._fill = fill
        self._negative_number_matcher = _NUMBER  # argparse's own knows no exponents

    def complete(self):
        """This parser, with its arguments."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        return self

    def add_positional(self, name, also=(), **rest):
        """A word that is given without an option; who writes --name, or a name of `also`, is told so."""
        self.meant |= dict.fromkeys([name, *also], name)
        return self.add_argument(name, **rest)

    def parse_known_args(self, args=None, namespace=None):
        self.complete()
        words = list(map(str, sys.argv[1:] if args is None else args))
        inner = self._inner()
        if inner is not None:
            for parser in inner.choices.values():
                parser.above = self
            self._check_command(words, inner.choices)
            return super().parse_known_args(words, namespace)
        words, given = self._check_words(words)
        options, rest = super().parse_known_args(words, namespace)
        options.given, options.line = frozenset(given), self.line
        options.flags = {action.dest: action.option_strings[0] for action in self._actions if action.option_strings}
        for action in self._actions:
            named = action.dest in given and action.metavar not in _MAY_BE_EMPTY
            if named and "" in _listed(getattr(options, action.dest)):
                name = next(iter(action.option_strings), action.metavar)
                self.error(f"{name} is empty; is a variable of the shell not set?")
        return options, rest

    @property
    def line(self):
        """The words of this command, without the program's name."""
        return self.prog.removeprefix(self._root().prog).strip()

    def _root(self):
        return self if self.above is None else self.above._root()

    def _inner(self):
        """The action that holds the commands of this parser, if it has any."""
        return next((action for action in self._actions if isinstance(action, argparse._SubParsersAction)), None)

    def _check_command(self, words, commands):
        """An error unless the words go on with a command, or ask for help."""
        word = words[0] if words else None
        if word is None:
            self.print_help(sys.stderr)
            self.exit(2)
        if word in commands or word in self._option_string_actions:
            return
        if word.translate(_TO_HYPHEN).startswith("-"):
            having = _having(commands, _plain(word))
            where = f"; it belongs behind its command, as in {self.prog} {having[0]} {_dashed(word)}" if having else ""
            self.error(f"there is no option {word} before the command{where}")
        near = closest(word, commands, 3)
        groups = {name: parser._inner() for name, parser in commands.items() if parser._inner() is not None}
        deeper = [f"{name} {word}" for name, group in groups.items() if word in group.choices]
        hint = f"did you mean {_any_of(deeper + near)}?" if deeper or near else f"there are {', '.join(commands)}."
        self.error(f"there is no command {word!r}; {hint} {self.prog} --help describes them")

    def _check_words(self, words):
        """The words as argparse reads them, and the names of what they give; an error for what it could not take."""
        positionals = self._without_option()
        made, free, given = [], [], set()  # free: (place in made, the option behind whose value it stands)
        i, before = 0, None
        while i < len(words):
            word, i = words[i], i + 1
            name, equals, value = word.partition("=")
            option = self._option_string_actions.get(name)
            made.append(word)
            if word == "--":
                free += [(len(made) + k, None) for k in range(len(words) - i)]
                made += words[i:]
                break
            if option is None:
                if self._is_option(word) or self._is_dashed_option(word):
                    self.error(self._unknown(word, value if equals else next(iter(words[i:]), None)))
                free.append((len(made) - 1, before))
                before = None
                continue
            if option.nargs == "+" and option.dest in given:
                self.error(f"{name} is given twice; give all its values behind one {name}")
            if option.nargs == 0 and equals:
                self.error(self._no_value(name, value))
            given.add(option.dest)
            before = name, option, value
            if option.nargs in ("*", "+"):
                before = None
                while not equals and i < len(words) and not self._is_option(words[i]):
                    made.append(words[i])
                    i += 1
            elif option.nargs != 0 and not equals:
                if i == len(words) or self._is_option(words[i]):
                    self.error(self._missing_value(name, option, words[i:]))
                before = name, option, words[i]
                if words[i].startswith("-"):  # argparse takes few negative numbers for what they are
                    made[-1] = f"{name}={words[i]}"
                else:
                    made.append(words[i])
                i += 1
        room = sum(map(_room, positionals))
        if len(free) > room:
            self.error(self._too_many(made, free, int(room), given))
        return made, given | {action.dest for action, _ in zip(positionals, free, strict=False)}

    def _without_option(self):
        return [action for action in self._actions if not action.option_strings]

    def _is_option(self, word):
        """Whether argparse takes this word for an option, known or not."""
        if word.partition("=")[0] in self._option_string_actions or word == "--":
            return True
        return word.startswith("-") and len(word) > 1 and " " not in word and not _NUMBER.fullmatch(word)

    def _is_dashed_option(self, word):
        """Whether a word begins with a dash that a text program made of a hyphen, and is nearly an option."""
        return word[:1] in tuple(_DASHES) and bool(self._near(_plain(word))) and not Path(word).exists()

    def _names(self):
        """{name without dashes: option} of the long options."""
        return {option.lstrip("-"): option for option in self._option_string_actions if option.startswith("--")}

    def _near(self, name):
        """The options that a name may stand for, the likeliest first."""
        options = self._names()
        same = [option for option in options if option.replace("-", "") == name.replace("-", "")]
        if not same and _SYNONYMS.get(name) in options:
            same = [_SYNONYMS[name]]
        if not same:
            begins = sorted((option for option in options if name and option.startswith(name)), key=len)
            same = list(dict.fromkeys([*closest(name, options, 3), *begins]))[:4]
        return [options[option] for option in same]

    def _unknown(self, word, value):
        """The message on an option that there is not; value: what stands behind it, if anything."""
        name, shown = _plain(word), word.partition("=")[0]
        meant = self.meant.get(name)
        near, exact = self._near(name), name in self._names()
        said = f"there is no option {shown}"
        if meant and not exact:
            positionals = self._without_option()
            places = [action.metavar for action in positionals]
            at = next(i for i, action in enumerate(positionals) if action.dest == meant)
            if value is not None and not self._is_option(value):
                places[at] = value
            return f"{said}: {positionals[at].metavar} is given without one, as in {self._written(*places)}"
        elsewhere = [] if exact or self.above is None else _having(self._root()._inner().choices, name)
        if elsewhere:
            said += f" of {self.line}, but of {_any_of(elsewhere, 'and')}"
        if near:
            return f"{said}; did you mean {_any_of(near)}?"
        return f"{said}; {self.prog} --help lists those that there are"

    def _no_value(self, name, value):
        off = f"; it is turned off with --no-{name[2:]}" if f"--no-{name[2:]}" in self._option_string_actions else ""
        return f"{name} takes no value, and {value!r} was given; write {name} alone{off}"

    def _missing_value(self, name, option, rest):
        """The message on an option whose value is missing."""
        value = option.metavar or _any_of(map(str, option.choices or [option.dest.upper()]))
        said = f"{name} needs a value, {value}"
        if not rest:
            return f"{said}, and nothing stands behind it"
        joined = quoted(f"{name}={rest[0]}")
        return f"{said}, and {rest[0]} stands behind it; a value that begins with a dash is written {joined}"

    def _too_many(self, made, free, room, given):
        """The message on words for which there is no place."""
        words = [made[place] for place, _ in free]
        said = f"{words[room]!r} is a word too many"
        if any(word[:1] in tuple(_QUOTES) for word in made if word):
            return f"{said}. Typographic quotes do not hold a text together; type \" or ' in their place"
        if words[room].split(" ")[0] in self._option_string_actions:
            return f"{words[room]!r} is one word; write an option and its value without quotes around both"
        for word, (_, before) in zip(words, free, strict=True):
            name, option, value = before or (None, None, None)
            if option is not None and option.nargs == 0 and word.lower() in _SWITCHED:
                return self._no_value(name, word)
            if option is not None and option.nargs is None and option.type in (None, str) and not Path(word).exists():
                said += f" behind {name} {value}"
                return f"{said}; a text with blanks needs quotes: {name} {quoted(f'{value} {word}')}"
        surplus = self.surplus
        if surplus.startswith("--") and self._option_string_actions[surplus].dest not in given:
            places = {place for place, _ in free[room:]}
            rest = [word for place, word in enumerate(made) if place not in places and word != "--"]
            meant = self._written(*rest, (surplus, " ".join(words[room:])))
            return f"{said}; did you mean {meant}?"
        if self._takes_text():
            return f"{said}; a text with blanks needs quotes: {quoted(' '.join(words[room - 1 :]))}"
        return said if surplus.startswith("--") or not surplus else f"{said}. {surplus}"

    def _written(self, *words):
        """This command with these words, as a shell takes it."""
        return self.prog + command_line(*words).removeprefix("minillama")

    def _takes_text(self):
        """Whether the last word of this command is a text."""
        return any(action.metavar == "TEXT" for action in self._without_option()[-1:])

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            near = closest(str(value), map(str, action.choices), 2)
            hint = f"; did you mean {_any_of(near)}?" if near else ""
            message = f"must be one of {', '.join(map(str, action.choices))}; received {value!r}{hint}"
            raise argparse.ArgumentError(action, message)


def _listed(value):
    return value if isinstance(value, list) else [value]


def _room(positional):
    """How many words a positional takes at most."""
    return {None: 1, "?": 1}.get(positional.nargs, float("inf"))


def _plain(word):
    """The name of an option as it was meant: without dashes before it and behind it, with hyphens, in small letters."""
    return word.partition("=")[0].translate(_TO_HYPHEN).replace("_", "-").strip("-").lower()


def _dashed(word):
    return "--" + _plain(word)


def _having(commands, name):
    """The commands that have this option, by the words of their line."""
    lines = []
    for command, parser in commands.items():
        inner = parser.complete()._inner()
        if inner is not None:
            lines += [f"{command} {line}" for line in _having(inner.choices, name)]
        elif f"--{name}" in parser._option_string_actions and name != "help":
            lines.append(command)
    return lines


def _any_of(names, word="or"):
    *names, last = names
    return f"{', '.join(names)} {word} {last}" if names else last
