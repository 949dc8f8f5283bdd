"""SentencePiece's tokenizer.model, which is a protocol buffer."""

from . import protobuf
from .added import AddedToken
from .sentencepiece import BYTE_TOKEN, SPACE, SentencePieceTokenizer, add_piece

# The types of a piece in sentencepiece_model.proto
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_MODEL_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}


def read_sentencepiece(data: bytes) -> SentencePieceTokenizer:
    """The tokenizer of a ModelProto of SentencePiece (sentencepiece_model.proto), of the type BPE

    The numbers below are those of its fields. ValueError for a file that is none, and for what would need more than
    merges by score: other types of models, normalisation rules, pieces defined by the user.
    """
    model = protobuf.read_message(data)
    trainer, normalizer = protobuf.message(model, 2), protobuf.message(model, 3)
    if not model.get(1):
        raise ValueError(
            "it has no pieces; expected a model of SentencePiece, or lines of base64 and rank as Llama 3's"
        )
    kind = protobuf.integer(trainer, 3, 1)
    if kind != 2:
        raise ValueError(f"it is a model of the type {_MODEL_TYPES.get(kind, kind)}, supported: bpe")
    if protobuf.integer(trainer, 24, 0):
        raise ValueError("it treats white space as a suffix, supported: as a prefix")
    if any(normalizer.get(2, [])):
        name = protobuf.string(normalizer, 1, "")
        raise ValueError(f"its normalisation rules {name!r} change characters, supported: identity")
    if not protobuf.integer(normalizer, 5, 1):
        raise ValueError(f"it does not write spaces as {SPACE!r}, which is needed")

    pieces: dict[str, int] = {}
    scores: dict[int, float] = {}
    added, unknown = [], None
    for i, row in enumerate(model[1]):
        if not isinstance(row, bytes):
            raise ValueError(f"piece {i} is the number {row}, expected a message")
        fields = protobuf.read_message(row)
        piece, score = protobuf.string(fields, 1, ""), protobuf.real(fields, 2, 0.0)
        kind = protobuf.integer(fields, 3, _NORMAL)
        if kind in (_UNKNOWN, _CONTROL):
            added.append(AddedToken(piece, i))
            if kind == _UNKNOWN:
                unknown = piece
        elif kind == (_BYTE if BYTE_TOKEN.fullmatch(piece) else _NORMAL):
            add_piece(pieces, scores, piece, i, score)
        else:
            raise ValueError(f"piece {i}, {piece!r}, has the type {kind}, supported: normal, unknown, control, byte")
    byte_pieces = sum(BYTE_TOKEN.fullmatch(piece) is not None for piece in pieces)
    if byte_pieces != (256 if protobuf.integer(trainer, 35, 0) else 0):
        raise ValueError(f"it has {byte_pieces} pieces for bytes, expected 256 with byte fallback, else none")
    by_id = {token.id: token.text for token in added}
    prefix, squeeze = protobuf.integer(normalizer, 3, 1) != 0, protobuf.integer(normalizer, 4, 1) != 0
    return SentencePieceTokenizer.from_scores(
        pieces,
        scores,
        added,
        unknown=unknown,
        template=(by_id.get(protobuf.integer(trainer, 41, 1)), None),
        prefix="always" if prefix else "never",
        squeeze=squeeze,
        strip=prefix or squeeze,
    )
