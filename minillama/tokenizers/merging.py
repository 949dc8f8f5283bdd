"""Byte-pair encoding itself: joining pairs of neighbours, learning which, and remembering words seen before.

The table of merges is {(left id, right id): (priority, id of the two joined)}; the lowest priority goes first, and of
equal ones the leftmost in the text. Three rules make such tables: the order in which merges were learned (the
tokenizers library), the scores of the tokens (SentencePiece), their ranks (tiktoken).
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_TOKEN = 1024  # of what is cut in all places below; the longest token of Llama 3 has 128 bytes


def merge(symbols: Sequence[int], merges: Mapping[tuple[int, int], tuple[int, int]]) -> list[int]:
    """Join neighbours until no merge applies: each time the one that goes first, at its leftmost place.

    The queue makes this O(n log n) in the number of symbols, so that a million spaces are no trap.
    """
    ids: list[Any] = list(symbols)  # None in the places that were joined to others
    n = len(ids)
    before, after = list(range(-1, n - 1)), list(range(1, n + 1))  # the neighbours of each place in use
    queue = []  # (priority, place of the left part, id of the two joined)
    for place, pair in enumerate(zip(ids, ids[1:], strict=False)):
        if pair in merges:
            priority, joined = merges[pair]
            queue.append((priority, place, joined))
    heapq.heapify(queue)

    def offer(place: int, right: int) -> None:
        found = merges.get((ids[place], ids[right]))
        if found is not None:
            heapq.heappush(queue, (found[0], place, found[1]))

    while queue:
        priority, place, joined = heapq.heappop(queue)
        right = after[place]
        if right == n or merges.get((ids[place], ids[right])) != (priority, joined):
            continue  # one of the two was joined to something else since this was queued
        ids[place], ids[right] = joined, None
        after[place] = after[right]
        if after[right] < n:
            before[after[right]] = place
            offer(place, after[right])
        if before[place] >= 0:
            offer(before[place], place)
    return [i for i in ids if i is not None]


def merges_by_token(tokens: Mapping, parts: Mapping, priorities: Mapping[int, int]) -> dict:
    """The table of merges in which a pair's priority is that of the token it makes, however that is cut in two.

    tokens, parts: str or bytes -> id; what is made, and what it is made of. priorities: id -> priority.
    """
    check_lengths(tokens)
    merges = {}
    for token, i in tokens.items():
        made = priorities[i], i
        for cut in range(1, len(token)):
            left = parts.get(token[:cut])
            if left is not None:
                right = parts.get(token[cut:])
                if right is not None:
                    merges[left, right] = made
    return merges


def check_lengths(tokens) -> None:
    longest = max(tokens, key=len, default="")
    if len(longest) > LONGEST_TOKEN:
        raise ValueError(
            f"a token of length {len(longest)}: {longest[:20]!r}...; the longest allowed is {LONGEST_TOKEN}"
        )


def learn_merges(
    words: list[list[int]],
    counts: Sequence[int],
    first_id: int,
    max_merges: int,
    tokens: Mapping[int, bytes] | None = None,
) -> list[tuple[int, int]]:
    """At most max_merges BPE merges (Sennrich et al. 2016, algorithm 1): pairs of ids in the order learned.

    words are distinct sequences of ids, rewritten in place; counts says how often each occurs. A merge gets
    the next id from first_id on. The pair counted most often is merged; of equal ones the smallest pair of
    ids, as in the tokenizers library, or, with tokens, id -> bytes of the symbols in words, the greatest pair
    of bytes. "aaa" counts the pair (a, a) twice, and merging it leaves "aa" + "a".
    Two merges never spell the same token: as each is made everywhere, equal stretches are joined alike.

    Rewriting only the words that contain the pair, and correcting only the counts of the pairs around it,
    makes a merge cost what it changes. A count only falls once its pair is in the heap: what comes up with
    too high a count is put back with the right one, and what comes up with the right count is the maximum.
    """
    pair_counts: Counter[tuple[int, int]] = Counter()
    words_with: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            pair_counts[pair] += counts[w]
            words_with[pair].add(w)
    greatest_first = None if tokens is None else _GreatestFirst(tokens)
    order = greatest_first or _by_ids
    heap = [(-count, order(pair), pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[tuple[int, int]] = []
    while heap and len(merges) < max_merges:
        negative_count, rank, pair = heapq.heappop(heap)
        if -negative_count != pair_counts[pair]:
            if pair_counts[pair]:
                heapq.heappush(heap, (-pair_counts[pair], rank, pair))
            continue
        new_id = first_id + len(merges)
        merges.append(pair)
        if greatest_first is not None:
            greatest_first.add(new_id, pair)
        new_pairs = set()
        for w in words_with.pop(pair):
            words[w], lost, gained = _merge_pair(words[w], pair, new_id)
            for old in lost:
                pair_counts[old] -= counts[w]
            for new in gained:
                pair_counts[new] += counts[w]
                words_with[new].add(w)
            new_pairs.update(gained)
        for new in new_pairs:
            if pair_counts[new]:
                heapq.heappush(heap, (-pair_counts[new], order(new), new))
    return merges


def _by_ids(pair: tuple[int, int]) -> tuple[int, int]:
    return pair


class _GreatestFirst:
    """Ranks of pairs, the smallest for the greatest pair of bytes."""

    def __init__(self, tokens: Mapping[int, bytes]):
        # A byte becomes 255 - byte, and the end of a token is above them all: a token goes before its own beginnings.
        self._keys = {i: "".join(chr(255 - byte) for byte in token) + _END for i, token in tokens.items()}

    def __call__(self, pair: tuple[int, int]) -> tuple[str, str]:
        return self._keys[pair[0]], self._keys[pair[1]]

    def add(self, i: int, pair: tuple[int, int]) -> None:
        left, right = self(pair)
        self._keys[i] = left.removesuffix(_END) + right


_END = chr(256)


def _merge_pair(word: list[int], pair: tuple[int, int], new_id: int) -> tuple[list[int], list, list]:
    """The word with the pair joined from left to right; the pairs beside it that are lost and gained."""
    merged: list[int] = []
    lost, gained = [], []
    left, right = pair
    i = 0
    while i < len(word):
        if word[i] == left and i + 1 < len(word) and word[i + 1] == right:
            if merged:
                lost.append((merged[-1], left))
                gained.append((merged[-1], new_id))
            if i + 2 < len(word):
                lost.append((right, word[i + 2]))
                gained.append((new_id, word[i + 2]))
            merged.append(new_id)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged, lost, gained


class WordCache(dict):
    """word -> its ids, computed when first asked for. Text repeats its words: most are found here."""

    MAX_WORDS = 1 << 16
    MAX_LENGTH = 64  # in characters; longer words are rare and would make the bound above a loose one

    def __init__(self, encode_word):
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> list[int]:
        ids = self.encode_word(word)
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids
