"""Text in: the corpora that a model is trained on, stories of known entropy, and files from public addresses."""
