"""Models on disk. The formats of files are the rows of minillama.checkpoint.formats; .open tells which lies at a path.

What follows is about Hugging Face directories, which `minillama.save` writes. A directory's model_type says which
architecture it holds. Each has a file here, with the names of its tensors and the keys of its config.json, and a row in
the table; reading and writing, which they share, is in minillama.checkpoint.huggingface. A model is saved as the first
row that can express its Config; the last can express every Config.
"""

from . import bert, gpt2, llama, native

ARCHITECTURES = {
    "llama": llama.ARCHITECTURE,
    "gpt2": gpt2.ARCHITECTURE,
    "bert": bert.ARCHITECTURE,
    "minillama": native.ARCHITECTURE,
}
