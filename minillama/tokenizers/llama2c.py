"""llama2.c's tokenizer.bin."""

import struct

from .added import AddedToken
from .sentencepiece import SPACE, SentencePieceTokenizer, add_piece


def read_llama2c(data: bytes) -> SentencePieceTokenizer:
    """The tokenizer of llama2.c's tokenizer.bin

    int32 length of the longest token in bytes, then for each token float32 score, int32 length and the bytes, little-
    endian, to the end of the file. A space is written as itself. The ids 0, 1, 2 are the unknown token and those of
    begin and end; the 256 bytes follow (tokenizer.py and run.c of https://github.com/karpathy/llama2.c).
    """
    if len(data) < 4:
        raise ValueError(f"it has {len(data)} bytes, expected a tokenizer.bin of llama2.c")
    (longest,) = struct.unpack_from("<i", data)
    pieces, scores = {}, {}
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
