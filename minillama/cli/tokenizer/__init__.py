"""minillama tokenizer: train a tokenizer, encode and decode with one."""

TOKENIZER = "a tokenizer's file, or a folder that has one"  # what --help says of the word
