"""Llama 3's tokenizer.model, in the format of OpenAI's tiktoken."""

import base64
import binascii

from .byte_level import BPETokenizer
from .merging import merges_by_token
from .patterns import LLAMA3_PATTERN

# Names of Llama 3.1 to 3.3, in the order of their ids. Llama 3 has reserved tokens in the place of some; those that it
# names have the same ids.
LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", *(f"<|reserved_special_token_{i}|>" for i in range(3, 248)),
)  # fmt: skip

LLAMA3_RANKS = 128_000
# Other files of this format, by the number of their ranks: those of OpenAI's tiktoken (openai_public.py), and Qwen's.
OTHERS = {
    50_256: "GPT-2's, r50k_base",
    50_280: "OpenAI's p50k_base",
    100_256: "OpenAI's cl100k_base",
    151_643: "Qwen's",
    199_998: "OpenAI's o200k_base",
}


def read_tiktoken(data: bytes, ranks: int | None = None) -> BPETokenizer:
    """The tokenizer of Llama 3's tokenizer.model: a line for each token, its bytes in base64 and its rank

    The rank is the token's id, and says which merge goes first. The 256 special tokens are not in the file, nor is the
    pattern that cuts words: of all models that have such a file, each has its own. Llama 3's is known by the number of
    its ranks, and others are refused. ranks: as many are expected of a file that is read as if it were Llama 3's.
    """
    vocab = {}
    for number, line in enumerate(data.splitlines(), start=1):
        token, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(token, validate=True)
        except binascii.Error as error:
            raise ValueError(f"line {number} is {line[:40]!r}, expected base64 and a rank ({error})") from error
        if not rank.isdigit() or len(rank) > 9 or not token or token in vocab:
            raise ValueError(f"line {number} is {line[:40]!r}, expected a new token in base64, and its rank")
        vocab[token] = int(rank)
    missing = [byte for byte in range(256) if bytes([byte]) not in vocab]
    if missing:
        raise ValueError(f"it has no token for {len(missing)} of the 256 bytes, the first is {missing[0]}")
    check_whose(vocab, ranks or LLAMA3_RANKS)
    merges = merges_by_token(vocab, vocab, {i: i for i in vocab.values()})
    return BPETokenizer(
        vocab,
        sorted(merges, key=lambda pair: (merges[pair], pair)),
        {text: i for i, text in enumerate(LLAMA3_SPECIAL_TOKENS, start=len(vocab))},
        LLAMA3_PATTERN,
        template=("<|begin_of_text|>", None),
        ignore_merges=True,
        merge_by_token=True,
    )


def check_whose(vocab: dict[bytes, int], ranks: int) -> None:
    """ValueError unless there are so many ranks."""
    if len(vocab) != ranks:
        known = OTHERS.get(len(vocab))
        raise ValueError(
            f"it has {len(vocab):,} ranks{f', as many as {known}' if known else ''}; Llama 3's has {LLAMA3_RANKS:,}. A "
            f"file of tiktoken says neither how words are cut nor which special tokens there are, and those of Llama 3 "
            f"would give wrong ids; use the tokenizer.json of the model that this file belongs to"
        )
