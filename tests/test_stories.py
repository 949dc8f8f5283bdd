"""The source of stories: its probabilities, and the grammar, memory and arithmetic of what it tells.

The checks of a text read it with regular expressions of their own and use none of the module's tables.
"""

import hashlib
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest

from minillama.data import stories
from minillama.data.stories import Pen, Reader, Story, Writer, generate, log_probability, tell, tell_story

PRONOUNS = {
    **dict.fromkeys("Lily Mia Anna Rosa Ella Sue Dot Ruby Bee Fay".split(), ("she", "her", "her")),
    **dict.fromkeys("Tom Ben Sam Leo Jack Finn Pip Gus Max Bo".split(), ("he", "him", "his")),
}
NUMBERS = "one two three four five six seven eight nine ten".split()
VALUES = {word: value for value, word in enumerate(NUMBERS, 1)}
NUMBER = "|".join(NUMBERS)
SINGULARS = {"berries": "berry", "cherries": "cherry", "peaches": "peach"}
EVENTS = {
    "ask": r'"May I have (?P<a_treat>an? \w+)\?" asked (?P<friend>\w+)\. (?P<hero>\w+) gave (?P<him>\w+) '
    r"(?P<minus>NUMBER) (?P<treats>\w+) and had (?P<left>NUMBER) left\.",
    "find": r"What luck! (?P<hero>\w+) found (?P<plus>NUMBER) more (?P<treats>\w+) [a-z ]+\. "
    r"Now (?P<he>\w+) had (?P<left>NUMBER)\.",
    "count": r'"Let us count\. (?P<aloud>[\w, ]+) (?P<treats>\w+)!" said (?P<friend>\w+)\.',
    "lunch": r"At noon (?P<hero>\w+) and (?P<friend>\w+) each ate one (?P<treat>\w+), "
    r"so (?P<left>NUMBER) (?P<left_treats>\w+) (?P<verb>\w+) left\.",
    "lose": r'"Oh no! Where is my (?P<toy>\w+ \w+)\?" \w+ (?P<hero>\w+)\. (?P<friend>\w+) found it [a-z ]+\.',
    "hide": r"Soon the (?P<weather>\w+) came\. They hid the (?P<toy>\w+ \w+) in [a-z ]+ "
    r"until the (?P=weather) was gone\.",
    "meet": r"Along came an? (?P<guest>\w+) who was \w+\. They \w+ the (?P=guest) [a-z ]+\.",
    "dream": r"Under a tree (?P<hero>\w+) fell asleep and dreamed that an? \w+ took the (?P<toy>\w+ \w+) "
    r"to [a-z ]+\.",
    "show_off": r'"Look! I can \w+ like an? (?P<animal>\w+)," said (?P<friend>\w+)\. (?P<hero>\w+) [a-z ]+\.',
}
EVENTS = {kind: re.compile(pattern.replace("NUMBER", NUMBER)) for kind, pattern in EVENTS.items()}
OPENING = re.compile(
    r"[A-Z][a-z ]+ there was a \w+ (?P<kind>girl|boy) named (?P<hero>\w+)\. "
    rf"(?P<He>\w+) had an? (?P<toy>\w+ \w+) and (?P<left>{NUMBER}) (?P<treats>\w+)\. "
    r"(?P<His>\w+) friend was an? (?P<animal>\w+) named (?P<friend>\w+)\. "
    r"(?P=hero) and (?P=friend) played with the (?P=toy) [a-z ]+\."
)
ENDING = re.compile(
    rf"\n[A-Z][a-z ]+ there (?P<verb>was|were) (?P<left>{NUMBER}) (?P<left_treats>\w+) left for [a-z ]+\. "
    r'"(?P<wish>[A-Z][a-z]+ [a-z]+), (?P<toy>\w+ \w+)\. ((?P=wish), (?P<guest>\w+)\. )?'
    r'(?P=wish), (?P<friend>\w+)," said (?P<hero>\w+)\.'
)


@pytest.fixture(scope="module")
def told():
    """2,000 (text, log_probability)."""
    rng = np.random.default_rng(1)
    return [tell_story(rng) for _ in range(2000)]


def check_story(text):
    """Read a story without the module's help; AssertionError where its memory, grammar or arithmetic fails.

    Returns the kinds of its events in order.
    """
    opening = OPENING.match(text)
    assert opening, text
    hero, friend, toy, animal = opening["hero"], opening["friend"], opening["toy"], opening["animal"]
    left = VALUES[opening["left"]]
    treat = SINGULARS.get(opening["treats"], opening["treats"].removesuffix("s"))
    guest = None
    he, him, his = PRONOUNS[hero]
    assert (opening["He"], opening["His"]) == (he.capitalize(), his.capitalize())
    assert opening["kind"] == ("girl" if he == "she" else "boy")

    def noun_for(number):
        return treat if number == 1 else opening["treats"]

    kinds = []
    position = opening.end()
    while text[position] == " ":
        matches = {kind: pattern.match(text, position + 1) for kind, pattern in EVENTS.items()}
        ((kind, match),) = ((kind, match) for kind, match in matches.items() if match)
        kinds.append(kind)
        position = match.end()
        facts = match.groupdict()
        same = {"hero": hero, "friend": friend, "toy": toy, "treat": treat, "he": he}
        for name in same.keys() & facts.keys():
            assert facts[name] == same[name], (name, text)
        if kind == "ask":
            assert facts["a_treat"].split()[1] == treat and facts["him"] == PRONOUNS[friend][1], text
            assert facts["treats"] == noun_for(VALUES[facts["minus"]]), text
            left -= VALUES[facts["minus"]]
        elif kind == "find":
            assert facts["treats"] == noun_for(VALUES[facts["plus"]]), text
            left += VALUES[facts["plus"]]
        elif kind == "count":
            assert facts["aloud"].lower().split(", ") == NUMBERS[:left], text
            assert facts["treats"] == noun_for(left), text
        elif kind == "lunch":
            left -= 2
            assert facts["left_treats"] == noun_for(left), text
            assert facts["verb"] == ("was" if left == 1 else "were"), text
        elif kind == "meet":
            guest = facts["guest"]
            assert guest != animal, text
        elif kind == "show_off":
            assert facts["animal"] != animal, text
        if "left" in facts:
            assert VALUES[facts["left"]] == left, text
    ending = ENDING.fullmatch(text, position)
    assert ending, text
    assert (ending["hero"], ending["friend"], ending["toy"]) == (hero, friend, toy), text
    assert ending["guest"] == guest, text
    assert VALUES[ending["left"]] == left and ending["left_treats"] == noun_for(left), text
    assert ending["verb"] == ("was" if left == 1 else "were"), text
    return kinds


class Listing(Pen):
    """Takes the choices of `script`, then first options; `taken` holds (index, number of options) of each."""

    def __init__(self, script):
        super().__init__()
        self.script, self.taken, self.text = script, [], ""

    def write(self, text):
        self.text += text

    def pick(self, options, weights, say):
        index = self.script[len(self.taken)] if len(self.taken) < len(self.script) else 0
        self.taken.append((index, len(options)))
        return index


def all_texts(program):
    """Every text of a program, by trying every option at every choice."""
    script = []
    while script is not None:
        pen = Listing(script)
        program(pen)
        yield pen.text
        taken = pen.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        script = [index for index, _ in taken[:-1]] + [taken[-1][0] + 1] if taken else None


def read_probability(program, text):
    pen = Reader(text)
    program(pen)
    assert pen.position == len(text)
    return math.exp(pen.log_probability)


class Recording(Writer):
    """A writer that keeps (what could have been said, weights, index of the option taken) of every choice."""

    def __init__(self, rng):
        super().__init__(rng)
        self.choices = []

    def pick(self, options, weights, say):
        index = super().pick(options, weights, say)
        self.choices.append((tuple(map(say, options)), tuple(weights), index))
        return index


@pytest.fixture(scope="module")
def choices():
    """All choices of 3,000 stories."""
    rng = np.random.default_rng(2)
    pens = [Recording(rng) for _ in range(3000)]
    for pen in pens:
        tell(pen)
    return [choice for pen in pens for choice in pen.choices]


# What a probability is


def test_the_reader_agrees_with_the_writer(told):
    for text, expected in told:
        assert abs(log_probability(text) - expected) <= 1e-9


def test_a_probability_by_hand():
    text = (
        "Long ago there was a kind boy named Tom. He had a red kite and two plums. His friend was an owl "
        'named Dot. Tom and Dot played with the red kite all day. "May I have a plum?" asked Dot. Tom gave '
        'her one plum and had one left. "Oh no! Where is my red kite?" asked Tom. Dot found it in a box.\n'
        'That night there was one plum left for breakfast. "Good night, red kite. Good night, Dot," said Tom.'
    )
    opening = 2 / 8 * 1 / 8 * 1 / 12 * 3 / 10 * 1 / 8 * 1 / 6 * 1 / 6 * 1 / 8 * 1 / 8 * 2 / 7
    # With two plums neither count nor lunch is possible, and the other seven events weigh 17. Without ask
    # they weigh 14, and without lose as well 11, beside the ending's 15.
    events = 3 / 17 * 1 * 3 / 14 * 2 / 6 * 1 / 8
    ending = 15 / (11 + 15) * 1 / 4 * 3 / 6 * 3 / 6
    assert log_probability(text) == pytest.approx(math.log(opening * events * ending), abs=1e-12)


def test_the_probabilities_of_all_texts_of_a_tiny_program_add_up_to_one():
    def program(pen):
        number = pen.choose([1, 2, 3], [5, 2, 1], lambda n: f"{n} ")
        for _ in range(number):
            if pen.choose(["red", "blue", "end"], [3, 2, 1]) == "end":
                return
            pen.write(", ")

    texts = list(all_texts(program))
    assert len(texts) == len(set(texts)) == 3 + (1 + 2 * 3) + (1 + 2 * (1 + 2 * 3))
    assert math.fsum(read_probability(program, text) for text in texts) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("event", [*stories.EVENTS, stories.ENDING], ids=lambda event: event.go_on.__name__)
@pytest.mark.parametrize("guest", [None, "cat"])
def test_the_probabilities_of_all_ways_an_event_can_go_on_add_up_to_one(event, guest):
    hero, friend = stories.CHILDREN[0], stories.FRIENDS[-1]
    for left in range(event.fewest, event.most + 1):
        story = Story(hero, "red kite", left, "peach", "owl", friend, guest)

        def program(pen, story=story):
            event.go_on(pen, replace(story))

        texts = list(all_texts(program))
        assert len(texts) == len(set(texts))
        assert math.fsum(read_probability(program, text) for text in texts) == pytest.approx(1, abs=1e-12)


def test_no_option_begins_another(choices):
    for said in {said for said, _, _ in choices}:
        for one, other in combinations(said, 2):
            assert not one.startswith(other) and not other.startswith(one), (one, other)


def test_a_reader_refuses_options_that_the_text_does_not_tell_apart():
    with pytest.raises(AssertionError, match="begins another"):
        Reader("berries").choose(["berry", "berries", "b"])


def chi_square_bound(degrees):
    """Exceeded by chance once in a million (the approximation of Wilson and Hilferty)."""
    return degrees * (1 - 2 / (9 * degrees) + 4.75 * math.sqrt(2 / (9 * degrees))) ** 3


def chi_square(counts, weights):
    expected = np.array(weights) * sum(counts) / sum(weights)
    return np.sum((counts - expected) ** 2 / expected)


def test_every_option_is_taken_as_often_as_its_weight_says(choices):
    taken = Counter(choices)
    tested = 0
    for said, weights in {(said, weights) for said, weights, _ in choices}:
        counts = [taken[said, weights, index] for index in range(len(said))]
        if len(said) > 1 and sum(counts) >= 10 * sum(weights):
            assert chi_square(counts, weights) < chi_square_bound(len(said) - 1), said
            tested += 1
    assert tested > 30


def test_the_texts_show_the_frequencies_that_the_source_has(told):
    def counts(pattern, options):
        found = Counter(re.search(pattern, text)[1] for text, _ in told)
        assert found.keys() == set(options)
        return [found[option] for option in options]

    openings = ["Once upon a time", "Long ago", "Not long ago", "Far away"]
    children = "Lily Mia Anna Rosa Ella Sue Tom Ben Sam Leo Jack Finn".split()
    for pattern, options, weights in [
        (r"^([\w ]+) there was a", openings, [4, 2, 1, 1]),
        (r"(?:girl|boy) named (\w+)", children, [1] * 12),
        (r"had an? (\w+) ", ["red", "blue", "green", "pink", "orange", "yellow"], [3, 2, 2, 1, 1, 1]),
        (rf"and ({NUMBER}) \w+\. H", NUMBERS[1:7], [1] * 6),
        (r'"([\w ]+), \w+ \w+\. ', ["Good night", "Sweet dreams", "Sleep well"], [3, 2, 1]),
    ]:
        assert chi_square(counts(pattern, options), weights) < chi_square_bound(len(options) - 1), pattern


# What a text must be to be a story


@pytest.mark.parametrize(
    ("change", "position", "expected"),
    [
        (lambda text: text.replace("there was a", "there is a"), 8, "' there was a brave '"),
        (lambda text: text.replace("Long ago", "Today"), 0, "'Once upon a time'"),
        (lambda text: text[:-1], 370, r"""expected 'Sweet dreams, Gus," said Jack\.'"""),
        (lambda text: text + "\n", 400, "expected the end"),
        (lambda text: "", 0, "'Long ago'"),
    ],
)
def test_an_error_says_where_a_text_ceases_to_be_a_story(change, position, expected):
    text = (
        "Long ago there was a quiet boy named Jack. He had a green bell and three apples. His friend was a "
        "dog named Gus. Jack and Gus played with the green bell in the sun. What luck! Jack found one more "
        'apple in the grass. Now he had four. "Let us count. One, two, three, four apples!" said Gus.\n'
        'At bedtime there were four apples left for the birds. "Sweet dreams, green bell. '
        'Sweet dreams, Gus," said Jack.'
    )
    assert check_story(text) == ["find", "count"] and log_probability(text) < 0
    with pytest.raises(ValueError, match=rf"{expected}.* at character {position}, received"):
        log_probability(change(text))


def test_a_changed_word_makes_no_story_or_another_true_one(told):
    rng = np.random.default_rng(3)
    lexicon = sorted({word for text, _ in told for word in re.findall(r"\w+", text)})
    others = 0
    for text, _ in told[:60]:
        words = re.split(r"(\w+)", text)  # words stand at odd places
        place = 1 + 2 * int(rng.random() * (len(words) // 2))
        for word in lexicon + ["zebra"]:
            changed = "".join([*words[:place], word, *words[place + 1 :]])
            if changed != text:
                try:
                    log_probability(changed)
                except ValueError:
                    continue
                assert word != "zebra"
                check_story(changed)
                others += 1
    assert 0 < others < 300  # a skill or a hiding place is free to change, a name or a number is not


def test_what_was_introduced_cannot_change_later(told):
    groups = ["Lily Tom Dot Pip", "red blue", "plum apple", "one two three", "She He", "she he", "was were"]
    for group in groups:
        refused = 0
        for old, new in permutations(group.split(), 2):
            for text, _ in told[:200]:
                for match in re.finditer(rf"\b{old}(?=s?\b)", text):
                    with pytest.raises(ValueError, match="not a story"):
                        log_probability(text[: match.start()] + new + text[match.end() :])
                    refused += 1
        assert refused > 10, group


def test_stories_are_consistent_and_grammatical(told):
    kinds = [check_story(text) for text, _ in told]
    assert {len(events) for events in kinds} == {2, 3, 4}
    assert all(len(set(events)) == len(events) for events in kinds)
    assert {event for events in kinds for event in events} == EVENTS.keys()
    assert len({tuple(events) for events in kinds}) > 300  # in many orders


def test_articles_and_plurals_agree(told):
    treats = "apples?|cookies?|berry|berries|peach|peaches|plums?|cherry|cherries"
    for text, _ in told:
        for article, noun in re.findall(r"\b([Aa]n?) (\w+)", text):
            assert (noun[0] in "aeiou") == (article in ("an", "An")), text
        for number, noun in re.findall(rf"\b({NUMBER}) (?:more )?({treats})\b", text):
            assert noun.endswith("s") == (number != "one"), text


def test_texts_are_plain(told):
    for text, _ in told:
        assert text.isascii() and text.count("\n") == 1 and text == text.strip() and "  " not in text
    words = {word.lower() for text, _ in told for word in re.findall("[A-Za-z]+", text)}
    assert 150 <= len(words) <= 250
    assert 250 <= np.mean([len(text) for text, _ in told]) <= 500
    assert 35 <= -np.mean([log_p for _, log_p in told]) <= 40


# The splits


def test_the_same_seed_gives_the_same_text_everywhere():
    made = generate(20_000, 0)
    digest = hashlib.sha256("\n\n".join(made.train + made.validation).encode()).hexdigest()
    assert digest == "c748c993eb46828c003098970badfaa5d640173990f1febb8dfb0c782778126a"
    assert generate(20_000, 0) == made
    assert set(generate(20_000, 1).train).isdisjoint(made.train)


def test_splits_are_disjoint_and_as_large_as_asked_for():
    made = generate(200_000, 5)
    together = made.train + made.validation
    assert len(set(together)) == len(together)
    assert len(made.validation) == len(together) // 10
    length = sum(map(len, together))
    assert 200_000 <= length < 200_000 + max(map(len, together))
    assert sum(map(len, together[:-1])) < 200_000


def test_a_repeated_story_is_drawn_again(monkeypatch):
    real = [(f"story {i}", -1.0) for i in range(40)]
    draws = iter([story for story in real for _ in range(2)])  # each one twice in a row
    monkeypatch.setattr(stories, "tell_story", lambda rng: next(draws))
    made = generate(sum(len(text) for text, _ in real), 0)
    assert made.train + made.validation == [text for text, _ in real]


def test_entropy_is_the_sum_of_minus_log_p(told):
    made = generate(10_000, 0)
    texts = [text for text, _ in told[:50]]
    assert made.entropy(texts) == pytest.approx(-sum(log_p for _, log_p in told[:50]), rel=1e-12)
    assert made.entropy([]) == 0
    with pytest.raises(ValueError, match="not a story"):
        made.entropy([*texts, "Once upon a time there was a zebra."])


@pytest.mark.parametrize("characters", [-1, 0, 2000])
def test_too_few_stories_for_a_validation_split_are_an_error(characters):
    with pytest.raises(ValueError, match=rf"{characters} characters hold only \d+ stories.*10,000 or more"):
        generate(characters, 0)
