"""Answers to the exercises of lesson 01: right ones in different styles, and plausible mistakes."""

import codecs
import re
from collections import Counter, defaultdict
from itertools import groupby, pairwise

import numpy as np


def _merge_loop(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merge_stack(ids, pair, new_id):
    """Looks back instead of ahead; what was just joined has a new id, so that it is not joined again."""
    out = []
    for i in ids:
        if out and out[-1] == pair[0] and i == pair[1]:
            out[-1] = new_id
        else:
            out.append(i)
    return out


def _merge_in_place(ids, pair, new_id):
    i = 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == tuple(pair):
            ids[i : i + 2] = [new_id]
        i += 1
    return ids


def _merge_text(ids, pair, new_id):
    """The regular expression of Sennrich et al., on numbers."""
    pattern = rf"(?<!\S){pair[0]} {pair[1]}(?!\S)"
    return [int(i) for i in re.sub(pattern, str(new_id), " ".join(map(str, ids))).split()]


def _merge_characters(ids, pair, new_id):
    return [ord(c) for c in "".join(map(chr, ids)).replace("".join(map(chr, pair)), chr(new_id))]


def _merge_overlapping(ids, pair, new_id):
    starts = {i for i in range(len(ids) - 1) if (ids[i], ids[i + 1]) == pair}
    out = []
    for i, id in enumerate(ids):
        if i in starts:
            out.append(new_id)
        elif i - 1 not in starts:
            out.append(id)
    return out


def _merge_without_skip(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
        else:
            out.append(ids[i])
        i += 1
    return out


def _merge_first(ids, pair, new_id):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return ids[:i] + [new_id] + ids[i + 2 :]
    return ids


def _merge_losing_the_last(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) == pair:
            out.append(new_id)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _merge_from_right(ids, pair, new_id):
    out, i = [], len(ids) - 1
    while i >= 0:
        if i > 0 and (ids[i - 1], ids[i]) == pair:
            out.insert(0, new_id)
            i -= 2
        else:
            out.insert(0, ids[i])
            i -= 1
    return out


def _merge_swapped(ids, pair, new_id):
    return _merge_loop(ids, (pair[1], pair[0]), new_id)


def _merge_list_with_tuple(ids, pair, new_id):
    """Never joins: a slice of a list is no tuple."""
    out, i = [], 0
    while i < len(ids):
        found = ids[i : i + 2] == pair
        out.append(new_id if found else ids[i])
        i += 2 if found else 1
    return out


def _merge_going_on_by_three(ids, pair, new_id):
    out, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair
        out.append(new_id if found else ids[i])
        i += 3 if found else 1
    return out


def _merge_dropping_the_rest(ids, pair, new_id):
    return [new_id for a in pairwise(ids) if a == pair]


def _count(words, weigh=True, distinct=False):
    counts = defaultdict(int)
    for word, n in words.items():
        pairs = pairwise(word)
        for pair in set(pairs) if distinct else pairs:
            counts[pair] += n if weigh else 1
    return counts


def _pair_by_key(words):
    counts = _count(words)
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_by_sorting(words):
    counts = Counter()
    for word, n in words.items():
        for i in range(len(word) - 1):
            counts.update({(word[i], word[i + 1]): n})
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[0]


def _pair_with_numpy(words):
    pairs = np.array([pair for word, n in words.items() for pair in list(pairwise(word)) * n])
    values, counts = np.unique(pairs, axis=0, return_counts=True)
    best = np.argmax(counts)  # unique() sorts the rows, and argmax takes the first of equals
    return tuple(values[best].tolist()), counts[best]


def _pair_without_words(words):
    counts = _count(words, weigh=False)
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_across_words(words):
    text = [i for word, n in words.items() for i in word * n]
    counts = Counter(pairwise(text))
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_once_a_word(words):
    counts = _count(words, distinct=True)
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_first_of_ties(words):
    counts = _count(words)
    pair = max(counts, key=counts.get)
    return pair, counts[pair]


def _pair_largest_of_ties(words):
    counts = _count(words)
    pair = max(counts, key=lambda pair: (counts[pair], pair))
    return pair, counts[pair]


def _pair_assigned(words):
    counts = {}
    for word, n in words.items():
        for pair in pairwise(word):
            counts[pair] = n
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_without_overlap(words):
    """Counts the places where the pair could be joined: (3, 3) once in (3, 3, 3)."""
    counts = Counter()
    for word, n in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += n * _merge_loop(word, pair, -1).count(-1)
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _pair_rarest(words):
    counts = _count(words)
    pair = min(counts, key=lambda pair: (counts[pair], pair))
    return pair, counts[pair]


def _pair_of_any_order(words):
    """Counts (1, 2) and (2, 1) as one."""
    counts = defaultdict(int)
    for word, n in words.items():
        for pair in pairwise(word):
            counts[tuple(sorted(pair))] += n
    pair = min(counts, key=lambda pair: (-counts[pair], pair))
    return pair, counts[pair]


def _encode_all_merges(ids, merges, first_id):
    for number, pair in enumerate(merges):
        ids = _merge_loop(ids, pair, first_id + number)
    return ids


def _encode_lowest(ids, merges, first_id):
    ranks = {pair: number for number, pair in enumerate(merges)}
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda pair: ranks.get(pair, len(merges)))
        if pair not in ranks:
            break
        ids = _merge_loop(ids, pair, first_id + ranks[pair])
    return ids


def _encode_recursive(ids, merges, first_id):
    ranks = {pair: number for number, pair in enumerate(merges)}
    found = [(ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in ranks]
    if not found:
        return list(ids)
    number, place = min(found)
    return _encode_recursive([*ids[:place], first_id + number, *ids[place + 2 :]], merges, first_id)


def _spelled(i, merges, first_id):
    if i < first_id:
        return (i,)
    return sum((_spelled(part, merges, first_id) for part in merges[i - first_id]), ())


def _encode_longest(ids, merges, first_id):
    tokens = {_spelled(first_id + n, merges, first_id): first_id + n for n in range(len(merges))}
    tokens |= {(i,): i for i in ids}
    out = []
    while ids:
        longest = max((t for t in tokens if tuple(ids[: len(t)]) == t), key=len)
        out.append(tokens[longest])
        ids = ids[len(longest) :]
    return out


def _encode_leftmost(ids, merges, first_id):
    i = 0
    ids = list(ids)
    while i < len(ids) - 1:
        if (ids[i], ids[i + 1]) in merges:
            ids[i : i + 2] = [first_id + merges.index((ids[i], ids[i + 1]))]
            i = 0
        else:
            i += 1
    return ids


def _encode_last_first(ids, merges, first_id):
    while True:
        found = [number for number, pair in enumerate(merges) if pair in list(pairwise(ids))]
        if not found:
            return ids
        ids = _merge_first(ids, merges[max(found)], first_id + max(found))


def _encode_once(ids, merges, first_id):
    for number, pair in enumerate(merges):
        if pair in pairwise(ids):
            return _merge_first(ids, pair, first_id + number)
    return ids


def _encode_base_pairs_only(ids, merges, first_id):
    for number, pair in enumerate(merges):
        if pair[0] < first_id and pair[1] < first_id:
            ids = _merge_loop(ids, pair, first_id + number)
    return ids


def _encode_overlapping(ids, merges, first_id):
    for number, pair in enumerate(merges):
        ids = _merge_without_skip(ids, pair, first_id + number)
    return ids


def _encode_by_frequency(ids, merges, first_id):
    """Takes the pair that is most frequent in this text, as training does."""
    while True:
        counts = Counter(pair for pair in pairwise(ids) if pair in merges)
        if not counts:
            return ids
        pair = max(counts, key=lambda pair: (counts[pair], -merges.index(pair)))
        ids = _merge_loop(ids, pair, first_id + merges.index(pair))


def _encode_one_place(ids, merges, first_id):
    for number, pair in enumerate(merges):
        ids = _merge_first(ids, pair, first_id + number)
    return ids


def _encode_backwards(ids, merges, first_id):
    for number in reversed(range(len(merges))):
        ids = _merge_loop(ids, merges[number], first_id + number)
    return ids


def _encode_from_one(ids, merges, first_id):
    for number, pair in enumerate(merges, start=1):
        ids = _merge_loop(ids, pair, first_id + number)
    return ids


def _encode_from_256(ids, merges, first_id):
    for number, pair in enumerate(merges):
        ids = _merge_loop(ids, pair, 256 + number)
    return ids


def _encode_counting_what_is_made(ids, merges, first_id):
    made = 0
    for pair in merges:
        if pair in list(pairwise(ids)):
            ids = _merge_loop(ids, pair, first_id + made)
            made += 1
    return ids


def _split_by_pattern(text, most):
    return re.findall(f"[0-9]{{1,{most}}}|[^0-9]+", text)


def _split_by_hand(text, most):
    parts = []
    for character in text:
        digit = character in "0123456789"
        last = parts[-1] if parts else ""
        if last and digit == (last[0] in "0123456789") and not (digit and len(last) == most):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _split_and_filter(text, most):
    return [part for part in re.split(f"([0-9]{{1,{most}}})", text) if part]


def _split_grouped(text, most):
    parts = []
    for digit, run in groupby(text, key=lambda c: "0" <= c <= "9"):
        run = "".join(run)
        parts += [run[i : i + most] for i in range(0, len(run), most)] if digit else [run]
    return parts


def _split_from_right(text, most):
    parts = []
    for run in re.findall("[0-9]+|[^0-9]+", text):
        if run[0] in "0123456789":
            head = len(run) % most
            run = ([run[:head]] if head else []) + [run[i : i + most] for i in range(head, len(run), most)]
            parts += run
        else:
            parts.append(run)
    return parts


def _split_whole_numbers(text, most):
    return re.findall("[0-9]+|[^0-9]+", text)


def _split_numbers_alone(text, most):
    return re.findall(f"[0-9]{{1,{most}}}", text)


def _split_characters(text, most):
    return re.findall(f"[0-9]{{1,{most}}}|[^0-9]", text, flags=re.S)


def _split_with_empty_parts(text, most):
    return re.split(f"([0-9]{{1,{most}}})", text)


def _split_any_digit(text, most):
    return re.findall(rf"\d{{1,{most}}}|\D+", text)


def _split_isdigit(text, most):
    parts = []
    for digit, run in groupby(text, key=str.isdigit):
        run = "".join(run)
        parts += [run[i : i + most] for i in range(0, len(run), most)] if digit else [run]
    return parts


def _split_full_groups(text, most):
    return re.findall(f"[0-9]{{{most}}}|[^0-9]+", text)


def _split_single(text, most):
    return re.findall("[0-9]|[^0-9]+", text)


def _split_without_spaces(text, most):
    return [part for word in text.split() for part in _split_by_pattern(word, most)]


def _stream_codecs(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(chunk) for chunk in chunks]


def _stream_by_lengths(chunks):
    held, texts = b"", []
    for chunk in chunks:
        held += chunk
        end = 0
        while end < len(held):
            first = held[end]
            need = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            if end + need > len(held):
                break
            end += need
        texts.append(held[:end].decode())
        held = held[end:]
    return texts


def _stream_by_error(chunks):
    held, texts = b"", []
    for chunk in chunks:
        held += chunk
        try:
            text, held = held.decode(), b""
        except UnicodeDecodeError as error:
            text, held = held[: error.start].decode(), held[error.start :]
        texts.append(text)
    return texts


def _stream_by_difference(chunks):
    """All text so far, less what was given before."""
    data, given, texts = b"", 0, []
    for chunk in chunks:
        data += chunk
        text = data.decode(errors="ignore")
        texts.append(text[given:])
        given = len(text)
    return texts


def _stream_not_cleared(chunks):
    held, texts = b"", []
    for chunk in chunks:
        held += chunk
        try:
            texts.append(held.decode())
        except UnicodeDecodeError as error:
            texts.append(held[: error.start].decode())
            held = held[error.start :]
    return texts


def _stream_without_empty(chunks):
    return [text for text in _stream_codecs(chunks) if text]


def _stream_replacing(chunks):
    return [chunk.decode("utf-8", "replace") for chunk in chunks]


def _stream_ignoring(chunks):
    return [chunk.decode("utf-8", "ignore") for chunk in chunks]


def _stream_at_the_end(chunks):
    return [b"".join(chunks).decode() if i == len(chunks) - 1 else "" for i in range(len(chunks))]


def _stream_all_or_nothing(chunks):
    texts, held = [], b""
    for chunk in chunks:
        held += chunk
        try:
            texts.append(held.decode("utf-8"))
        except UnicodeDecodeError:
            texts.append("")
        else:
            held = b""
    return texts


def _stream_repeating(chunks):
    return [b"".join(chunks[: i + 1]).decode("utf-8", "ignore") for i in range(len(chunks))]


def _stream_characters(chunks):
    return ["".join(map(chr, chunk)) for chunk in chunks]


def _stream_one_text(chunks):
    return [b"".join(chunks).decode()]


RIGHT = {
    "merge_pair": [_merge_loop, _merge_stack, _merge_in_place, _merge_text, _merge_characters],
    "most_frequent_pair": [_pair_by_key, _pair_by_sorting, _pair_with_numpy],
    "apply_merges": [_encode_all_merges, _encode_lowest, _encode_recursive],
    "split_numbers": [_split_by_pattern, _split_by_hand, _split_grouped, _split_and_filter],
    "stream_text": [_stream_codecs, _stream_by_lengths, _stream_by_error, _stream_by_difference],
}

WRONG = {
    "merge_pair": [
        (_merge_overlapping, "went into two merges"),
        (_merge_without_skip, "the right part of the pair is still there"),
        (_merge_first, "only where it stands first"),
        (_merge_losing_the_last, "the last id is lost"),
        (_merge_from_right, "must start from the left"),
        (_merge_swapped, "left and right are swapped"),
        (_merge_list_with_tuple, "nothing was joined"),
        (_merge_going_on_by_three, "compare your answer"),
        (_merge_dropping_the_rest, "compare your answer"),
    ],
    "most_frequent_pair": [
        (_pair_without_words, "how often each word occurs"),
        (_pair_across_words, "across the end of one word"),
        (_pair_once_a_word, "counts twice"),
        (_pair_first_of_ties, "not the one met first"),
        (_pair_largest_of_ties, "this is the largest"),
        (_pair_assigned, "must add up"),
        (_pair_without_overlap, "counts twice"),
        (_pair_rarest, "least often"),
        (_pair_of_any_order, "count every pair of neighbours"),
    ],
    "apply_merges": [
        (_encode_longest, "the longest token that fits"),
        (_encode_leftmost, "joins the leftmost pair"),
        (_encode_last_first, "learned last first"),
        (_encode_once, "stops after the first merge"),
        (_encode_base_pairs_only, "merges of what merges have made"),
        (_encode_overlapping, "take the pair with the lowest number"),
        (_encode_one_place, "at one place only"),
        (_encode_backwards, "from the last to the first"),
        (_encode_from_one, "off by one"),
        (_encode_from_256, "not always 256"),
        (_encode_counting_what_is_made, "not from how many were made"),
        (_encode_by_frequency, "most frequent in this text"),
    ],
    "split_numbers": [
        (_split_from_right, "counted from the right"),
        (_split_whole_numbers, "not into groups"),
        (_split_numbers_alone, "what stands between numbers is lost"),
        (_split_characters, "must stay together"),
        (_split_with_empty_parts, "empty parts"),
        (_split_any_digit, "only 0 to 9"),
        (_split_isdigit, "only 0 to 9"),
        (_split_full_groups, "beyond the last full group"),
        (_split_single, "whatever `most` says"),
        (_split_without_spaces, "joined must give the text back"),
    ],
    "stream_text": [
        (_stream_replacing, "decoded on its own"),
        (_stream_ignoring, "thrown away"),
        (_stream_at_the_end, "comes at the end"),
        (_stream_all_or_nothing, "gives nothing at all"),
        (_stream_repeating, "repeats what came before"),
        (_stream_characters, "bytes are not characters"),
        (_stream_not_cleared, "comes again"),
        (_stream_without_empty, "one text for each chunk"),
        (_stream_one_text, "one text for each chunk"),
    ],
}
