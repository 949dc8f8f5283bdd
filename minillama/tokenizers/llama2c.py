"""llama2.c's tokenizer.bin."""

import struct

from .added import AddedToken
from .sentencepiece import BYTE_TOKEN, SPACE, SentencePieceTokenizer, add_piece

# The texts of the first ids in llama2.c's files; the bytes come after them.
_SPECIAL = {0: b"<unk>", 1: b"\n<s>\n", 2: b"\n</s>\n"}
_FIRST = len(_SPECIAL) + 256  # the first ordinary piece


def read_llama2c(data: bytes) -> SentencePieceTokenizer:
    """The tokenizer of llama2.c's tokenizer.bin

    int32 length of the longest token in bytes, then for each token float32 score, int32 length and the bytes, little-
    endian, to the end of the file. A space is written as itself. The ids 0, 1, 2 are the unknown token and those of
    begin and end; the 256 bytes follow (tokenizer.py and run.c of https://github.com/karpathy/llama2.c).
    """
    if len(data) < 4:
        raise ValueError(f"it has {len(data)} bytes, expected a tokenizer.bin of llama2.c")
    (longest,) = struct.unpack_from("<i", data)
    pieces: dict[str, int] = {}
    scores: dict[int, float] = {}
    place, i = 4, 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError(f"it ends within token {i}, at byte {place}; fetch it again")
        score, length = struct.unpack_from("<fi", data, place)
        place += 8
        if not 0 <= length <= min(longest, len(data) - place):
            raise ValueError(
                f"token {i} has the length {length}, expected 0 to {longest} and no more than the file has left; "
                "this is no tokenizer.bin of llama2.c, or a damaged one"
            )
        try:
            text = data[place : place + length].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"token {i} is {data[place : place + length]!r}, expected UTF-8") from error
        place += length
        if i >= 3:
            expected = f"<0x{i - 3:02X}>" if i < 3 + 256 else text
            if text != expected:
                raise ValueError(f"token {i} is {text!r}, expected {expected!r}: the bytes come after three tokens")
            add_piece(pieces, scores, text.replace(" ", SPACE), i, score)
        i += 1
    if i < 3 + 256:
        raise ValueError(f"it has {i} tokens, expected at least {3 + 256}: three of their own meaning and the bytes")
    added = [AddedToken(text, i) for i, text in enumerate(("<unk>", "<s>", "</s>"))]
    return SentencePieceTokenizer.from_scores(pieces, scores, added, unknown="<unk>", template=("<s>", None))


def write_llama2c(tokenizer) -> bytes:
    """The tokenizer.bin of llama2.c for a tokenizer; ValueError, with the reason, for one that would give other ids

    llama2.c merges the pair whose joined piece has the highest score. As in SentencePiece's own files the scores are
    0, -1, -2 ... in the order of the merges, and go on with the pieces that no merge makes.
    """
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise ValueError(
            f"llama2.c has SentencePiece's kind of tokenizer only, and this is a {type(tokenizer).__name__}"
        )
    _check_expressible(tokenizer)
    scores = piece_scores(tokenizer, "llama2.c")
    texts = {i: piece.replace(SPACE, " ").encode() for piece, i in tokenizer.pieces.items()} | _SPECIAL
    rows = [struct.pack("<fi", scores.get(i, 0.0), len(text)) + text for i, text in sorted(texts.items())]
    return struct.pack("<i", max(map(len, texts.values()))) + b"".join(rows)


def piece_scores(tokenizer: SentencePieceTokenizer, format: str) -> dict[int, float]:
    """{id: score} of the pieces, in which a merge goes before another where its result has the higher score

    As in SentencePiece's own files the scores are 0, -1, -2 ... in the order of the merges, and go on with the pieces
    that no merge makes. ValueError for merges of which no scores tell the order; format: for the message.
    """
    levels = _levels(tokenizer, format)
    merged = {i for level in levels for i in level}
    plain = [
        i for piece, i in sorted(tokenizer.pieces.items(), key=lambda item: item[1]) if not BYTE_TOKEN.fullmatch(piece)
    ]
    levels += [{i} for i in plain if i not in merged]
    return {i: -float(k) for k, level in enumerate(levels) for i in level}


def _levels(tokenizer: SentencePieceTokenizer, format: str) -> list[set[int]]:
    """Sets of the pieces that merges make, from those that are made first; those of a set are made by equal right

    A tokenizer.json has an order of all merges. SentencePiece gives one score to all pieces of several spaces, so that
    the merges that make them lie in any order there; other pieces have each a place of their own.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for rank, joined in sorted(tokenizer._merges.values()):
        first.setdefault(joined, rank)
        last[joined] = rank
    spaces = {i for piece, i in tokenizer.pieces.items() if not piece.strip(SPACE)}
    levels: list[set[int]] = []
    end = -1
    for joined in sorted(first, key=first.__getitem__):
        if levels and (first[joined] == last[joined] == end or {joined, *levels[-1]} <= spaces):
            levels[-1].add(joined)
        elif first[joined] > end:
            levels.append({joined})
        else:
            raise ValueError(
                f"{format} has one score for each piece, and merges that make the same piece lie apart here"
            )
        end = max(end, last[joined])
    return levels


def _check_expressible(tokenizer: SentencePieceTokenizer) -> None:
    special = {token.id for token in tokenizer.added_tokens}
    if special != set(_SPECIAL):
        raise ValueError(
            f"llama2.c has the special tokens 0, 1 and 2, unknown, begin and end; here they are {sorted(special)[:9]}"
        )
    if any(tokenizer.pieces.get(f"<0x{byte:02X}>") != len(_SPECIAL) + byte for byte in range(256)):
        raise ValueError("llama2.c has the tokens of the bytes after three special tokens, which is not so here")
    if tokenizer.prefix != "always" or tokenizer.cut or tokenizer.squeeze:
        raise ValueError("llama2.c puts a space before every text and leaves all others; this tokenizer does not")
