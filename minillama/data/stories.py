"""Short children's stories from a source whose entropy is known.

One program, `tell`, tells a story through a pen: `pen.write` writes what must come next, and `pen.choose`
leaves it to chance: it picks one of several options and writes it on the spot. No option of a choice is the
beginning of another, so a text betrays every choice that made it, and its probability is their product:

    log p(text) = sum over the choices of log(weight of the option taken / weights of all options)

A `Writer` takes the choices at random; a `Reader` finds them in a given text. As the true p of every story
is known, so is the entropy of the source, the mean of -log p: no language model can have a lower loss.

A model that predicts a story as well as its author has to look back: for names and pronouns, for the colour
of a toy, for what has happened already, and for how many apples are left.
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

        The chance of an option is its share of `weights`, which are integers; without weights all options are
        equally likely. What is said of one may not be the beginning of what is said of another.
        """
        weights = weights or [1] * len(options)
        index = self.pick(options, weights, say)
        self.log_probability += math.log(weights[index] / sum(weights))
        self.write(say(options[index]))
        return options[index]


class Writer(Pen):
    """Takes every choice at random, with draws of `rng.random()` alone: they are the same in every NumPy."""

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
_COLOURS = "red blue green pink orange yellow".split()
TOYS = "kite ball boat drum book doll bell hat".split()
TREATS = "apple cookie berry peach plum cherry".split()
PLURALS = {"berry": "berries", "peach": "peaches", "cherry": "cherries"}
NUMBERS = "no one two three four five six seven eight nine ten".split()
SKILLS = "fly hop sing dance swim read bake paint".split()

HIDING_PLACES = "under a tree, under a leaf, under a hat, behind a tree, behind a rock".split(", ")
HIDING_PLACES += "in the grass, in a box, in a shoe".split(", ")
WEATHERS = "rain wind snow fog".split()
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
    pen.choose(VIRTUES, say=lambda virtue: f" there was a {virtue} ")
    hero = pen.choose(CHILDREN, say=lambda child: f"{child.kind} named {child}. ")
    colour = pen.choose(_COLOURS, [3, 2, 2, 1, 1, 1], lambda hue: f"{hero.he.capitalize()} had {a(hue)} ")
    toy = pen.choose(TOYS, say=lambda toy: f"{toy} and ")
    left = pen.choose(range(2, 8), say=lambda number: f"{NUMBERS[number]} ")
    treat = pen.choose(TREATS, say=lambda treat: f"{plural(treat)}. ")
    animal = pen.choose(ANIMALS, say=lambda animal: f"{hero.his.capitalize()} friend was {a(animal)} ")
    friend = pen.choose(FRIENDS, say=lambda friend: f"named {friend}. {hero} and {friend} played ")
    times = ["every day", "all day", "in the sun", "by the sea"]
    pen.choose(times, [3, 2, 1, 1], lambda time: f"with the {colour} {toy} {time}.")
    return Story(hero, f"{colour} {toy}", left, treat, animal, friend)


def ask(pen, s):
    pen.write(f' {a(s.treat)}?" asked {s.friend}. {s.hero} gave {s.friend.him} ')
    most = min(s.left - 1, 3)  # one is always kept
    given = pen.choose(range(1, most + 1), [3, 2, 1][:most], lambda number: some(number, s.treat))
    s.left -= given
    pen.write(f" and had {NUMBERS[s.left]} left.")


def find(pen, s):
    found = pen.choose([1, 2, 3], say=lambda number: f" {s.hero} found {NUMBERS[number]} more ")
    s.left += found
    pen.choose(HIDING_PLACES, say=lambda place: f"{s.treat if found == 1 else plural(s.treat)} {place}.")
    pen.write(f" Now {s.hero.he} had {NUMBERS[s.left]}.")


def count(pen, s):
    aloud = ", ".join(NUMBERS[1 : s.left + 1]).capitalize()
    pen.write(f' {aloud} {plural(s.treat)}!" said {s.friend}.')


def lunch(pen, s):
    s.left -= 2
    rest = f"{some(s.left, s.treat)} {'was' if s.left == 1 else 'were'}"
    pen.write(f" {s.hero} and {s.friend} each ate one {s.treat}, so {rest} left.")


def lose(pen, s):
    pen.write(f' Where is my {s.toy}?" ')
    pen.choose(["cried", "asked", "called"], [3, 2, 1], lambda said: f"{said} {s.hero}. {s.friend} found it ")
    pen.choose(HIDING_PLACES, say=lambda place: f"{place}.")


def hide(pen, s):
    weather = pen.choose(WEATHERS, [4, 2, 1, 1], lambda weather: f" the {weather} came. ")
    pen.choose(SHELTERS, say=lambda place: f"They hid the {s.toy} in {place} ")
    pen.choose(PASTIMES, say=lambda pastime: f"and {pastime} until the {weather} was gone.")


def meet(pen, s):
    s.guest = pen.choose(others(ANIMALS, s.animal), say=lambda animal: f" {a(animal)} who was ")
    pen.choose(list(TROUBLES), say=lambda trouble: f"{trouble}. They {TROUBLES[trouble].format(s.guest)}.")


def dream(pen, s):
    pen.choose(ANIMALS, say=lambda animal: f" {s.hero} fell asleep and dreamed that {a(animal)} took ")
    places = ["the moon", "the sea", "a king", "a party", "school"]
    pen.choose(places, say=lambda place: f"the {s.toy} to {place}.")


def show_off(pen, s):
    pen.choose(SKILLS, say=lambda skill: f" I can {skill} like ")
    pen.choose(others(ANIMALS, s.animal), say=lambda animal: f'{a(animal)}," said {s.friend}. ')
    pen.choose(["laughed and laughed", "clapped", "smiled"], [3, 2, 1], lambda did: f"{s.hero} {did}.")


def ending(pen, s):
    pen.choose(["At bedtime", "That night", "When the moon came up", "When the stars came out"])
    rest = f"{'was' if s.left == 1 else 'were'} {some(s.left, s.treat)}"
    uses = ["breakfast", "tomorrow", "the birds"]
    pen.choose(uses, [3, 2, 1], lambda use: f' there {rest} left for {use}. "')
    wishes = ["Good night", "Sweet dreams", "Sleep well"]
    wish = pen.choose(wishes, [3, 2, 1], lambda wish: f"{wish}, {s.toy}. ")
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
    """(text, log_probability): a story drawn with a numpy Generator, and its log probability in nats."""
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
        """Total nats of `texts`, the sum of -log p: the loss on them of a model that knows the source.

        Divided by their total length it is nats a character. Raises ValueError for a text that is no story.
        """
        return -math.fsum(log_probability(text) for text in texts)


def generate(characters, seed):
    """As many different stories as hold `characters` characters or more; the last tenth is for validation.

    The same seed gives the same stories on every machine. Raises ValueError if there are fewer than ten.
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
            f"{characters} characters hold only {len(stories)} stories, too few to set a tenth aside for "
            "validation: ask for 10,000 or more"
        )
    stories = list(stories)
    tenth = len(stories) // 10
    return Stories(train=stories[:-tenth], validation=stories[-tenth:])
