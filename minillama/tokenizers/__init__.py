"""Text to token ids and back: characters, byte-pair encoding over bytes or characters, and WordPiece.

Byte-pair encoding (BPE) starts from single symbols and repeatedly joins the pair of neighbours that occurs
most often in the training text; encoding a new text replays those joins in the order they were learned
(Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", arXiv
1508.07909). GPT-2 made the symbols bytes, so that no text is ever unknown (Radford et al. 2019, section 2.2).
Llama 3 uses this kind; LLaMA 1 and 2 use BPE over characters, with bytes as a fallback, from SentencePiece.
BERT's WordPiece takes the longest parts of a word that have a token.

    class                   models            files that load_tokenizer reads
    BPETokenizer            GPT-2, Llama 3    tokenizer.json, tokenizer.model of Llama 3, vocab.json and merges.txt
    SentencePieceTokenizer  LLaMA 1 and 2     tokenizer.json, tokenizer.model, tokenizer.bin of llama2.c
    WordPieceTokenizer      BERT              tokenizer.json, vocab.txt
    CharTokenizer           those made here   tokenizer.json

    tokenizer.encode(text)                                  an array of ids; .tolist() makes a list of it
    tokenizer.encode(text, special=["<|endoftext|>"])       other special tokens are plain text; False: all are
    tokenizer.encode_iterable(open_file)                    the same ids one after the other, in little memory

All save the tokenizer.json of Hugging Face's tokenizers library, which gives the same ids from it.
"""

from .added import AddedToken
from .base import END_OF_TEXT, MASK, Tokenizer, TokenStream
from .byte_level import BPETokenizer
from .byte_symbols import BYTE_SYMBOLS
from .characters import CharTokenizer
from .files import load_tokenizer
from .merging import learn_merges
from .patterns import DIGITS_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, PATTERNS, compile_pattern
from .sentencepiece import SentencePieceTokenizer
from .vocab_json import read_vocab_and_merges
from .wordpiece import WordPieceTokenizer

__all__ = [
    "BYTE_SYMBOLS", "DIGITS_PATTERN", "END_OF_TEXT", "GPT2_PATTERN", "LLAMA3_PATTERN", "MASK", "PATTERNS",
    "AddedToken", "BPETokenizer", "CharTokenizer", "SentencePieceTokenizer", "TokenStream", "Tokenizer",
    "WordPieceTokenizer", "compile_pattern", "learn_merges", "load_tokenizer", "read_vocab_and_merges",
]  # fmt: skip
