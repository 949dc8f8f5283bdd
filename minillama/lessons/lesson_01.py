"""Checkers of lesson 01."""

import codecs
import re
from collections import Counter

from .checks import exercise


@exercise("01", "One merge", difficulty=1, minutes=10)
def merge_pair(answer, trial):
    """answer(ids, pair, new_id) -> list: ids with every (left, right) joined to new_id, from left to right."""
    cases = [([2, 1, 1, 2, 3, 4], (1, 2))]  # both orders of the pair, and two ids behind: mistakes differ here
    cases += [([3, 1, 2, 3], (1, 2)), ([1, 1, 1], (1, 1)), ([2, 1, 1, 1, 1, 3], (1, 1)), ([], (1, 2)), ([1], (1, 1))]
    cases += [([1, 2, 3, 1, 2], (1, 2)), ([1, 2, 2, 1], (2, 1)), ([1, 3, 2], (1, 2))]
    for _ in range(12):
        pair = tuple(trial.rng.integers(1, 4, size=2).tolist())
        cases.append((trial.rng.integers(1, 4, size=trial.rng.integers(2, 20)).tolist(), pair))
    for ids, pair in cases:
        new_id = int(trial.rng.integers(10, 99))
        got = trial.call(answer, list(ids), pair, new_id, returns=[("merged", list)])
        expected = _merged(ids, pair, new_id)
        places = [i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair]
        mistakes = {
            "pairs overlap here: one id went into two merges. After a merge go on behind both of its parts": (
                _overlapping(ids, pair, new_id)
            ),
            "the pair is joined only where it stands first; join it at every place": (
                ids[: places[0]] + [new_id] + ids[places[0] + 2 :] if places else ids
            ),
            "the last id is lost when it is not part of a merge: does your loop stop one short of the end?": (
                expected[:-1] if ids and not (places and expected[-1] == new_id) else expected
            ),
            "the right part of the pair is still there: a merge takes both ids away": _kept_right(ids, pair, new_id),
            "where pairs overlap the merge must start from the left: 1 1 1 becomes (1 1) 1, not 1 (1 1)": (
                _merged(ids[::-1], pair[::-1], new_id)[::-1]
            ),
            "nothing was joined. Is a list compared with a tuple? [1, 2] == (1, 2) is False": ids,
            "left and right are swapped: (1, 2) is a 1 with a 2 after it": _merged(ids, pair[::-1], new_id),
        }
        told = f"{ids} with the pair {pair} and the new id {new_id}"
        trial.equal("merged from left to right", got, expected, told, mistakes, "compare your answer with this case")
        expanded = [old for i in got for old in (pair if i == new_id else (i,))]
        trial.that("the new id spelled out gives the old ids", expanded == ids, "ids were lost or made up", told)


@exercise("01", "The pair to merge next", difficulty=1, minutes=10)
def most_frequent_pair(answer, trial):
    """answer(words) -> pair, count: of {tuple of ids: how often the word occurs}; of equal counts the smallest pair."""
    cases = [
        {(2, 1): 3, (1, 2): 2, (5, 6): 4, (3, 4): 1},  # (1, 2) and (2, 1) are two pairs
        {(1, 2): 4, (3, 4): 4, (5, 1, 2): 1},  # the counts of a pair in two words add up: 4 + 1
        {(7, 8): 1, (5, 6): 5, (1, 2, 3): 2},  # the counts decide
        {(6, 5): 3, (9, 4): 3, (4, 9): 3, (7, 2): 3},  # a tie, neither smallest nor largest are first or last
        {(5, 1): 2, (2, 5): 2, (1, 2): 1, (1, 2, 6): 1, (3, 7): 2},
        {(3, 3, 3): 2, (1, 2): 3},  # (3, 3) stands twice in one word: 4 against 3
        {(1, 2): 4, (2, 1): 5, (1, 2, 9): 2},
        {(8, 1): 1, (1, 8): 1, (6, 1): 1, (1, 7): 1, (2, 3): 2},  # across words nothing counts
    ]
    for _ in range(10):
        words = {}
        for _ in range(int(trial.rng.integers(2, 8))):
            word = tuple(trial.rng.integers(1, 5, size=trial.rng.integers(2, 7)).tolist())
            words[word] = int(trial.rng.integers(1, 6))
        cases.append(words)
    for words in cases:
        got = trial.call(answer, dict(words), returns=[("pair", tuple), ("count", int)])
        counts, once, per_word, across, last = Counter(), Counter(), Counter(), Counter(), {}
        for word, count in words.items():
            pairs = list(zip(word, word[1:], strict=False))
            for pair in pairs:
                counts[pair] += count
                once[pair] += 1
                last[pair] = count
            for pair in set(pairs):
                per_word[pair] += count
        line = [i for word, count in words.items() for _ in range(count) for i in word]
        across.update(zip(line, line[1:], strict=False))
        most = max(counts.values())
        ties = [pair for pair in counts if counts[pair] == most]
        mistakes = {
            "how often each word occurs is not counted: a pair in a word that occurs 5 times counts 5": _best(once),
            "pairs are counted across the end of one word and the start of the next; nothing is merged there": (
                _best(across)
            ),
            "a pair that stands twice in a word counts twice: (3, 3, 3) has the pair (3, 3) two times": _best(per_word),
            "counts of the same pair in several words must add up; is there = where += is meant?": _best(last),
            "of pairs with equal counts the smallest is wanted; this is the largest": (max(ties), most),
            "of pairs with equal counts the smallest is wanted, not the one met first or last": (
                got if got in ((ties[0], most), (ties[-1], most)) else None
            ),
            "the pair is right and its count is not": (min(ties), got[1]),
            "this is the pair that is counted least often": (min(counts, key=lambda p: (counts[p], p)), got[1]),
        }
        told = f"words {words}"
        hint = "count every pair of neighbours inside each word, times how often the word occurs"
        trial.equal("the pair counted most often", tuple(got), (min(ties), most), told, mistakes, hint)


@exercise("01", "Encode by the order of the merges", difficulty=2, minutes=20)
def apply_merges(answer, trial):
    """answer(ids, merges, first_id) -> list: merges in the order they were learned; number r makes first_id + r."""
    first = [(2, 1), (3, 1), (2, 2), (1, 2), (12, 2), (1, 14)]  # with this each known mistake gives something else
    cases = [([3, 1, 2, 2, 1, 2, 2, 2, 2, 1], first), ([1, 2, 3], [(2, 3), (1, 2)]), ([1, 1, 1], [(1, 1)])]
    cases += [([], [(1, 2)]), ([1], [(1, 2)]), ([2, 1], [])]
    cases += [([1, 2, 3, 1, 2, 1, 2], [(1, 2), (10, 3), (10, 11)]), ([1, 2, 3, 4], [(2, 3), (1, 2), (3, 4), (12, 4)])]
    cases += [([2, 1, 2, 3, 1, 2], [(2, 3), (1, 2), (10, 1)]), ([1, 2, 1, 2, 2, 3], [(2, 3), (1, 2), (2, 1)])]
    for _ in range(10):
        text = trial.rng.integers(1, 4, size=60).tolist()
        merges = _learned(text, 8)
        cases.append((trial.rng.integers(1, 4, size=trial.rng.integers(2, 16)).tolist(), merges))
    for ids, merges in cases:
        first_id = 10
        got = trial.call(answer, list(ids), list(merges), first_id, returns=[("encoded", list)])
        expected = list(ids)
        for number, pair in enumerate(merges):
            expected = _merged(expected, pair, first_id + number)
        told = f"{ids} with the merges {merges}, the first of which makes {first_id}"
        mistakes = {
            "this joins the pair that is most frequent in this text; at encoding the order of the merges counts": (
                _by_frequency(ids, merges, first_id)
            ),
            "this takes the longest token that fits, from left to right; the merge learned first goes first, wherever "
            "it stands and however short it is": _longest(ids, merges, first_id),
            "each merge is made at one place only; make it wherever its pair stands": (
                _in_order(ids, merges, first_id, everywhere=False)
            ),
            "this joins the leftmost pair that has a merge; the merge learned first must go first, wherever it "
            "stands": _one_by_one(ids, merges, first_id, lambda found: min(found, key=lambda f: f[1])),
            "this applies the merge learned last first; it is the other way round": (
                _one_by_one(ids, merges, first_id, lambda found: max(found, key=lambda f: (f[0], -f[1])))
            ),
            "this goes through the merges from the last to the first; it is the other way round": (
                _in_order(ids, merges, first_id, backwards=True)
            ),
            "the ids are off by one: the first merge has the number 0 and makes first_id": (
                _in_order(ids, merges, first_id + 1)
            ),
            "a merge's id comes from its number in `merges`, not from how many were made in this text": (
                _counted(ids, merges, first_id)
            ),
            "merge number r makes first_id + r; first_id is not always 256": (_in_order(ids, merges, 256)),
            "it stops after the first merge; go on until no pair of neighbours has a merge": (
                _one_by_one(ids, merges, first_id, min, most=1)
            ),
            "merges of what merges have made are missing: start again from the new list": _flat(ids, merges, first_id),
        }
        hint = "take the pair with the lowest number in `merges`, join it, and look again until none is left"
        trial.equal("as the merges in their order give", got, expected, told, mistakes, hint)
        trial.that(
            "spelled out it is the text again", _spelled(got, merges, first_id) == ids, "ids were lost or made up", told
        )


@exercise("01", "Cut numbers into groups of digits", difficulty=2, minutes=15)
def split_numbers(answer, trial):
    """answer(text, most) -> list of str: groups of at most `most` digits 0 to 9 from the left, and what is between."""
    cases = [("in 1984", 1), ("in 1984", 3), ("12345", 2), ("", 1), ("no digits", 2), ("7", 3), ("1,234,567.89", 3)]
    cases += [("a1b22c333", 1), ("ab 12 cd", 2), ("٣٤ and x² 56", 1), ("line\n20\n\n21 ", 1), ("1234567", 3)]
    alphabet = [*"0123456789" * 2, *"ab .,\n猫"]
    for _ in range(12):
        text = "".join(trial.rng.choice(alphabet, size=trial.rng.integers(1, 25)))
        cases.append((text, int(trial.rng.integers(1, 5))))
    for text, most in cases:
        got = trial.call(answer, text, most, returns=[("parts", list)])
        told = f"{text!r} with most = {most}"
        trial.that(
            "every part is a piece of text",
            all(isinstance(part, str) for part in got),
            "the parts must be of type str",
            f"{told}: got {got}",
        )
        expected = re.findall(rf"[0-9]{{1,{most}}}|[^0-9]+", text)
        runs = re.findall(r"[0-9]+|[^0-9]+", text)
        mistakes = {
            "the groups are counted from the right; Llama 3's pattern counts from the left: 1234 is 123, 4": [
                part for run in runs for part in (_from_right(run, most) if run[0] in _DIGITS else [run])
            ],
            "a number is cut from its neighbours but not into groups": runs,
            "what stands between numbers is lost": [part for part in expected if part[0] in _DIGITS],
            "what stands between numbers must stay together": (
                [p for part in expected for p in ([part] if part[0] in _DIGITS else part)]
            ),
            "every digit is alone, whatever `most` says": re.findall("[0-9]|[^0-9]+", text),
            "digits beyond the last full group are lost": re.findall(rf"[0-9]{{{most}}}|[^0-9]+", text),
            "there are empty parts; leave them out": got if [part for part in got if part] == expected else None,
            "only 0 to 9 count as digits here: \\d and str.isdigit() take others too, like ٣ and ²": (
                got if any(c.isdigit() and c not in _DIGITS for c in text) and "".join(got) == text else None
            ),
        }
        otherwise = "the parts joined must give the text back" if "".join(got) != text else "the cuts are elsewhere"
        trial.equal("groups of digits from the left", got, expected, told, mistakes, otherwise)
        trial.that("the parts joined are the text", "".join(got) == text, "characters were lost", told)


@exercise("01", "Text from a stream of bytes", difficulty=2, minutes=20)
def stream_text(answer, trial):
    """answer(chunks) -> list of str, one for each bytes of the list: the characters that it completes."""
    cases = [
        [b"low"],
        [b"ab\xe7", b"\x8c\xab c\xc3", b"\xa9", b"d"],
        [b"\xc3", b"\xa9"],
        [b"a\xc3", b"\xa9b"],
        [b"\xf0", b"\x9f\xa6", b"\x99!"],
    ]
    cases += [[b"", b"x"], [], [b"ab\xe7", b"\x8c", b"\xab cd"], [b"\xe7\x8c\xab\xc3", b"\xa9"]]
    alphabet = [*"abc é猫🦙ß"]
    for _ in range(12):
        data = "".join(trial.rng.choice(alphabet, size=trial.rng.integers(1, 12))).encode()
        cuts = sorted(trial.rng.integers(0, len(data) + 1, size=trial.rng.integers(1, 6)).tolist())
        cases.append([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    for chunks in cases:
        got = trial.call(answer, list(chunks), returns=[("texts", list)])
        told = f"chunks {chunks}"
        decoder = codecs.getincrementaldecoder("utf-8")()
        expected = [decoder.decode(chunk) for chunk in chunks]
        whole = b"".join(chunks).decode()
        mistakes = {
            "each chunk is decoded on its own, so that a character cut in two becomes U+FFFD; keep the bytes of an "
            "incomplete character for the next chunk": [c.decode(errors="replace") for c in chunks],
            "the bytes of a character that is cut in two are thrown away; keep them for the next chunk": (
                [c.decode(errors="ignore") for c in chunks]
            ),
            "all of the text comes at the end; give what is complete at once": [""] * (len(chunks) - 1) + [whole],
            "a chunk that ends within a character gives nothing at all; the complete characters before it must come "
            "at once": _all_or_nothing(chunks),
            "each text repeats what came before; give only what is new": (
                ["".join(expected[: i + 1]) for i in range(len(expected))]
            ),
            "what was complete is kept as well and comes again: after a success nothing is held": _not_cleared(chunks),
            "bytes are not characters: chr(byte) is right for ASCII alone": [c.decode("latin-1") for c in chunks],
        }
        hint = "one text for each chunk is wanted" if len(got) != len(chunks) else "compare your answer with this case"
        trial.equal("each chunk gives what it completes", got, expected, told, mistakes, hint)
        trial.that("the texts joined are the text", "".join(got) == whole, "characters were lost", told)


_DIGITS = "0123456789"


def _merged(ids, pair, new_id):
    made, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == tuple(pair)
        made.append(new_id if found else ids[i])
        i += 2 if found else 1
    return made


def _overlapping(ids, pair, new_id):
    """A new id wherever the pair stands, and the ids that belong to none."""
    found = [p == tuple(pair) for p in zip(ids, ids[1:], strict=False)]
    left, right = [*found, False], [False, *found]
    return [new_id if a else i for i, a, b in zip(ids, left, right, strict=False) if a or not b]


def _kept_right(ids, pair, new_id):
    pairs = zip(ids, ids[1:], strict=False)
    return [new_id if p == tuple(pair) else p[0] for p in pairs] + list(ids[-1:])


def _best(counts):
    most = max(counts.values())
    return min(pair for pair in counts if counts[pair] == most), most


def _learned(ids, number, first_id=10):
    merges = []
    for new_id in range(first_id, first_id + number):
        merges.append(_best(Counter(zip(ids, ids[1:], strict=False)))[0])
        ids = _merged(ids, merges[-1], new_id)
    return merges


def _one_by_one(ids, merges, first_id, choose, most=None):
    ids = list(ids)
    while most is None or most > 0:
        found = [(merges.index(p), i) for i, p in enumerate(zip(ids, ids[1:], strict=False)) if p in merges]
        if not found:
            break
        number, place = choose(found)
        ids[place : place + 2] = [first_id + number]
        most = most and most - 1
    return ids


def _in_order(ids, merges, first_id, backwards=False, everywhere=True):
    """Each merge once, in the order of the list or backwards; everywhere, or where its pair stands first."""
    numbered = list(enumerate(merges))
    for number, pair in reversed(numbered) if backwards else numbered:
        places = [i for i, found in enumerate(zip(ids, ids[1:], strict=False)) if found == pair]
        end = len(ids) if everywhere else places[0] + 2 if places else 0
        ids = _merged(ids[:end], pair, first_id + number) + ids[end:]
    return list(ids)


def _counted(ids, merges, first_id):
    """Ids in the order in which merges are made in this text."""
    new_id = first_id
    for pair in merges:
        if pair in zip(ids, ids[1:], strict=False):
            ids = _merged(ids, pair, new_id)
            new_id += 1
    return list(ids)


def _by_frequency(ids, merges, first_id):
    while counts := Counter(pair for pair in zip(ids, ids[1:], strict=False) if pair in merges):
        pair = max(counts, key=lambda pair: (counts[pair], -merges.index(pair)))
        ids = _merged(ids, pair, first_id + merges.index(pair))
    return list(ids)


def _flat(ids, merges, first_id):
    """Only merges of the ids as given."""
    for number, pair in enumerate(merges):
        if max(pair) < first_id:
            ids = _merged(ids, pair, first_id + number)
    return list(ids)


def _spelled(ids, merges, first_id):
    spelled = list(ids)
    for number, pair in reversed(list(enumerate(merges))):
        spelled = [old for i in spelled for old in (pair if i == first_id + number else (i,))]
    return spelled


def _longest(ids, merges, first_id):
    tokens = {tuple(_spelled([first_id + n], merges, first_id)): first_id + n for n in range(len(merges))}
    made, i = [], 0
    while i < len(ids):
        end = next((e for e in range(len(ids), i + 1, -1) if tuple(ids[i:e]) in tokens), i + 1)
        made.append(tokens.get(tuple(ids[i:end]), ids[i]))
        i = end
    return made


def _from_right(digits, most):
    first = len(digits) % most
    return [part for part in [digits[:first], *re.findall(rf"[0-9]{{{most}}}", digits[first:])] if part]


def _all_or_nothing(chunks):
    texts, held = [], b""
    for chunk in chunks:
        held += chunk
        try:
            texts.append(held.decode())
            held = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts


def _not_cleared(chunks):
    texts, held = [], b""
    for chunk in chunks:
        held += chunk
        try:
            texts.append(held.decode())
        except UnicodeDecodeError as error:
            texts.append(held[: error.start].decode())
            held = held[error.start :]
    return texts
