"""Short children's stories from a source whose entropy is known.

One program, `tell`, tells a story through a pen: `pen.write` writes fixed words, and `pen.choose` leaves the next words
to chance. It picks one of several options and writes it on the spot. No option of a choice is the beginning of another,
so a text betrays every choice that made it, and its probability is the product of theirs:

    log p(text) = sum over the choices of log(weight of the option taken / weights of all options)

A `Writer` takes the choices at random; a `Reader` finds them in a given text. As the true p of every story is known, so
is the loss that no language model can beat on average: the entropy of the source, the mean of -log p over its stories.

A model that predicts a story as well as its author has to look back: for names and pronouns, for the colour of a toy,
for what has happened already, and for how many apples are left.
"""

import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np


class Pen:
    """What a story is told through. `log_probability` is that of the choices made so far, in nats."""

    def __init__(self):
        self.log_probability = 0.0

    def choose(self, options, weights=None, say=str):
        """Choose one of `options`, write `say(option)` and return the option.

        The chance of an option is its share of `weights`, which are integers; without weights all are equally likely.
        What is said of one option may not be the beginning of what is said of another.
        """
        weights = weights or [1] * len(options)
        index = self.pick(options, weights, say)
        self.log_probability += math.log(weights[index] / sum(weights))
        self.write(say(options[index]))
        return options[index]


class Writer(Pen):
    """Takes every choice at random. Of the numpy Generator `rng` it uses `random()` alone, whose draws are the same
    in every version of NumPy."""

    def __init__(self, rng):
        super().__init__()
        self.random = rng.random
        self.pieces = []

    def write(self, text):
        self.pieces.append(text)

    def pick(self, options, weights, say):
        return bisect(list(accumulate(weights)), self.random() * sum(weights))


class Reader(Pen):
    """Follows a text that is already there, and finds out which choices it made."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.position = 0

    def write(self, text):
        if not self.text.startswith(text, self.position):
            raise self.surprise(repr(text))
        self.position += len(text)

    def pick(self, options, weights, say):
        said = [say(option) for option in options]
        fitting = [i for i, words in enumerate(said) if self.text.startswith(words, self.position)]
        if not fitting:
            raise self.surprise(f"one of {said}")
        assert len(fitting) == 1, f"one of {said} begins another: the text does not tell them apart"
        return fitting[0]

    def surprise(self, expected):
        rest = self.text[self.position : self.position + 40]
        return ValueError(f"not a story: expected {expected} at character {self.position}, received {rest!r}")


class Character(NamedTuple):
    name: str
    kind: str
    he: str
    him: str
    his: str

    def __str__(self):
        return self.name


GIRL, BOY = ("girl", "she", "her", "her"), ("boy", "he", "him", "his")
CHILDREN = [Character(name, *GIRL) for name in "Lily Mia Anna Rosa Ella Sue".split()]
CHILDREN += [Character(name, *BOY) for name in "Tom Ben Sam Leo Jack Finn".split()]
FRIENDS = [Character(name, *GIRL) for name in "Dot Ruby Bee Fay".split()]
FRIENDS += [Character(name, *BOY) for name in "Pip Gus Max Bo".split()]
VIRTUES = "brave kind happy clever gentle funny jolly quiet".split()
ANIMALS = "frog cat dog owl duck goat fox bear".split()
COLOURS = "red blue green pink orange yellow".split()
TOYS = "kite ball boat drum book doll bell hat".split()
TREATS = "apple cookie berry peach plum cherry".split()
PLURALS = {"berry": "berries", "peach": "peaches", "cherry": "cherries"}
NUMBERS = "no one two three four five six seven eight nine ten".split()
SKILLS = "fly hop sing dance swim read bake paint".split()

HIDING_PLACES = "under a tree, under a leaf, under a hat, behind a tree, behind a rock, in the grass, in a box, in a shoe"
HIDING_PLACES = HIDING_PLACES.split(", ")
SHELTERS = "a cave, a tent, a barn, a hollow tree, an old boat, a big box".split(", ")
PASTIMES = "sang, danced, told jokes, took a nap, read a book, ate cake".split(", ")
TROUBLES = {
    "sad": "sang the {} a song",
    "cold": "gave the {} a hat",
    "tired": "made the {} a bed",
    "lost": "took the {} home",
    "bored": "told the {} a story",
    "muddy": "gave the {} a bath",
}


def a(noun):
    """With the indefinite article: a plum, an apple."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun):
    return PLURALS.get(noun, noun + "s")


def some(number, noun):
    """Number and noun in agreement: one plum, two plums."""
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"


def others(options, taken):
    return [option for option in options if option != taken]


@dataclass
class Story:
    """What has to be remembered while a story is told."""

    hero: Character
    toy: str  # with its colour
    left: int  # how many treats the hero has now
    treat: str
    animal: str  # what the friend is
    friend: Character
    guest: str | None = None  # an animal that was met on the way


def tell(pen):
    """Tell one story: an opening, two to four different events, and an ending that remembers both."""
    s = opening(pen)
    told = []
    while ENDING not in told:
        possible = [event for event in EVENTS if event not in told and event.fewest <= s.left <= event.most]
        if len(told) >= 2:
            possible = [*possible, ENDING] if len(told) < 4 else [ENDING]
        event = pen.choose(possible, [event.weight for event in possible], lambda event: event.first_words)
        event.go_on(pen, s)
        told.append(event)


def opening(pen):
    pen.choose(["Once upon a time", "Long ago", "Not long ago", "Far away"], [4, 2, 1, 1])
    pen.write(" there was a ")
    pen.choose(VIRTUES)
    pen.write(" ")
    hero = pen.choose(CHILDREN, say=lambda child: f"{child.kind} named {child}")
    pen.write(f". {hero.he.capitalize()} had ")
    colour = pen.choose(COLOURS, [3, 2, 2, 1, 1, 1], say=a)
    pen.write(" ")
    toy = pen.choose(TOYS)
    pen.write(" and ")
    left = pen.choose(range(2, 8), say=lambda number: NUMBERS[number])
    pen.write(" ")
    treat = pen.choose(TREATS, say=plural)
    pen.write(f". {hero.his.capitalize()} friend was ")
    animal = pen.choose(ANIMALS, say=a)
    pen.write(" named ")
    friend = pen.choose(FRIENDS)
    pen.write(f". {hero} and {friend} played with the {colour} {toy} ")
    pen.choose(["every day", "all day", "in the sun", "by the sea"], [3, 2, 1, 1])
    pen.write(".")
    return Story(hero, f"{colour} {toy}", left, treat, animal, friend)


def ask(pen, s):
    pen.write(f' {a(s.treat)}?" asked {s.friend}. {s.hero} gave {s.friend.him} ')
    most = min(s.left - 1, 3)  # one is always kept
    given = pen.choose(range(1, most + 1), [3, 2, 1][:most], say=lambda number: some(number, s.treat))
    s.left -= given
    pen.write(f" and had {NUMBERS[s.left]} left.")


def find(pen, s):
    pen.write(f" {s.hero} found ")
    found = pen.choose([1, 2, 3], say=lambda number: NUMBERS[number])
    s.left += found
    pen.write(f" more {s.treat if found == 1 else plural(s.treat)} ")
    pen.choose(HIDING_PLACES)
    pen.write(f". Now {s.hero.he} had {NUMBERS[s.left]}.")


def count(pen, s):
    aloud = ", ".join(NUMBERS[1 : s.left + 1]).capitalize()
    pen.write(f' {aloud} {plural(s.treat)}!" said {s.friend}.')


def lunch(pen, s):
    s.left -= 2
    verb = "was" if s.left == 1 else "were"
    pen.write(f" {s.hero} and {s.friend} each ate one {s.treat}, so {some(s.left, s.treat)} {verb} left.")


def lose(pen, s):
    pen.write(f' Where is my {s.toy}?" ')
    pen.choose(["cried", "asked", "called"], [3, 2, 1])
    pen.write(f" {s.hero}. {s.friend} found it ")
    pen.choose(HIDING_PLACES)
    pen.write(".")


def hide(pen, s):
    pen.write(" the ")
    weather = pen.choose(["rain", "wind", "snow", "fog"], [4, 2, 1, 1])
    pen.write(f" came. They hid the {s.toy} in ")
    pen.choose(SHELTERS)
    pen.write(" and ")
    pen.choose(PASTIMES)
    pen.write(f" until the {weather} was gone.")


def meet(pen, s):
    pen.write(" ")
    s.guest = pen.choose(others(ANIMALS, s.animal), say=a)
    pen.write(" who was ")
    trouble = pen.choose(list(TROUBLES))
    pen.write(f". They {TROUBLES[trouble].format(s.guest)}.")


def dream(pen, s):
    pen.write(f" {s.hero} fell asleep and dreamed that ")
    pen.choose(ANIMALS, say=a)
    pen.write(f" took the {s.toy} to ")
    pen.choose(["the moon", "the sea", "a king", "a party", "school"])
    pen.write(".")


def show_off(pen, s):
    pen.write(" I can ")
    pen.choose(SKILLS)
    pen.write(" like ")
    pen.choose(others(ANIMALS, s.animal), say=a)
    pen.write(f'," said {s.friend}. {s.hero} ')
    pen.choose(["laughed and laughed", "clapped", "smiled"], [3, 2, 1])
    pen.write(".")


def ending(pen, s):
    pen.choose(["At bedtime", "That night", "When the moon came up", "When the stars came out"])
    verb = "was" if s.left == 1 else "were"
    pen.write(f" there {verb} {some(s.left, s.treat)} left for ")
    pen.choose(["breakfast", "tomorrow", "the birds"], [3, 2, 1])
    pen.write('. "')
    wish = pen.choose(["Good night", "Sweet dreams", "Sleep well"], [3, 2, 1])
    pen.write(f", {s.toy}. ")
    if s.guest:
        pen.write(f"{wish}, {s.guest}. ")
    pen.write(f'{wish}, {s.friend}," said {s.hero}.')


class Event(NamedTuple):
    """What may happen next. Its first words, written when it is chosen, tell a reader which event it is."""

    first_words: str
    weight: int
    go_on: Callable[[Pen, Story], None]
    fewest: int = 1  # treats that it needs
    most: int = 10  # and that it can start from, as the numbers end at ten


EVENTS = [
    Event(' "May I have', 3, ask, fewest=2),
    Event(" What luck!", 2, find, most=7),
    Event(' "Let us count.', 2, count, fewest=3),
    Event(" At noon", 2, lunch, fewest=3),
    Event(' "Oh no!', 3, lose),
    Event(" Soon", 2, hide),
    Event(" Along came", 3, meet),
    Event(" Under a tree", 2, dream),
    Event(' "Look!', 2, show_off),
]
ENDING = Event("\n", 15, ending)


def tell_story(rng):
    """A story drawn with the numpy Generator `rng`, and its log probability in nats: (text, log_probability)."""
    pen = Writer(rng)
    tell(pen)
    return "".join(pen.pieces), pen.log_probability


def log_probability(text):
    """The natural logarithm of the probability that the source tells exactly `text`, in nats.

    Raises ValueError, with the position and what was expected there, for a text that the source cannot tell.
    """
    pen = Reader(text)
    tell(pen)
    if pen.position < len(text):
        raise pen.surprise("the end")
    return pen.log_probability


@dataclass(frozen=True)
class Stories:
    """Stories to train on and to validate with; no story stands twice in them."""

    train: list[str]
    validation: list[str]

    def entropy(self, texts):
        """Total nats of `texts` under the source, the sum of -log p: the loss of a model that knows the source.

        Divided by their total length it is in nats a character. Raises ValueError for a text that is no story.
        """
        return -math.fsum(log_probability(text) for text in texts)


def generate(characters, seed):
    """As many different stories as it takes to hold `characters` characters or more; the last tenth for validation.

    The same seed gives the same stories on every machine. Raises ValueError if they are fewer than ten stories.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    stories = {}  # a dict, for its keys are different and stay in order
    length = 0
    while length < characters:
        text, _ = tell_story(rng)
        if text not in stories:  # repeats are so rare that to draw again leaves the probabilities as they are
            stories[text] = None
            length += len(text)
    if len(stories) < 10:
        raise ValueError(
            f"{characters} characters hold {len(stories)} stories, and ten are needed to set a tenth aside for "
            "validation: ask for 10,000 characters or more"
        )
    stories = list(stories)
    tenth = len(stories) // 10
    return Stories(train=stories[:-tenth], validation=stories[-tenth:])
