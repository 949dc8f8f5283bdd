"""Whether a tokenizer and a model belong together. They need not have equally many tokens.

A model may have more: rows that fill its matrices up to a round number, and stand for no text. Their ids are not drawn
(`vocab_size` of minillama.generation.generate), and have a number where they are shown. A tokenizer may have more
special tokens than the model knows, such as one for padding, as long as none of them is used.
"""

import numpy as np


def check_tokenizer(tokenizer, vocab_size):
    """ValueError where an ordinary token of the tokenizer has no row among the vocab_size of a model."""
    special = set(tokenizer.special_tokens.values())
    if any(i >= vocab_size and i not in special for i in tokenizer.ids):
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model {vocab_size:,}, so it is another "
            f"model's; put the tokenizer there that the model was trained with"
        )


def check_ids(ids, tokenizer, vocab_size):
    """The ids that a tokenizer made of a text, or ValueError for one without a row among the vocab_size of a model."""
    outside = np.flatnonzero(np.asarray(ids) >= vocab_size)
    if len(outside):
        i = int(ids[outside[0]])
        raise ValueError(
            f"the text has the token {tokenizer.token_bytes(i).decode(errors='backslashreplace')!r} with the id {i}, "
            f"for which the model has no row: the tokenizer has {tokenizer.vocab_size:,} tokens and the model "
            f"{vocab_size:,}. Leave it out, or put the tokenizer there that the model was trained with"
        )
    return ids
