"""What is stated of the models, by whom, and where the reference card of LLaMA is imprecise.

The card is a page that sums the family up; the lines quoted below are its. Nothing here is computed, and everything has
a source: what follows from the shapes is in minillama.catalogue.sizes, and minillama.catalogue.table puts the two
beside each other.
"""

from typing import NamedTuple


class Stated(NamedTuple):
    """What its authors say of a model; None where they do not."""

    label: str  # the model's name
    size: float  # parameters, as the name or the authors give them
    tokens: float | None  # that it was trained on
    sequence: int | None  # tokens of a sequence in most of the training
    peak_lr: float | None
    gpu_hours: float | None
    gpu: str | None  # a key of PEAK_FLOPS
    source: str


# Dense bfloat16 operations a second of one GPU. NVIDIA's data sheets: A100 80GB SXM, 312 TFLOPS; H100 SXM, 1,979 TFLOPS
# with 2:4 sparsity, half of it without.
PEAK_FLOPS = {"A100-80GB": 312e12, "H100-80GB": 989e12}

_LLAMA_1 = "arXiv 2302.13971, tables 2 and 15"
_LLAMA_2 = "arXiv 2307.09288, tables 1 and 2; model card in github.com/meta-llama/llama"
_LLAMA_3 = "model card in github.com/meta-llama/llama3; arXiv 2407.21783, table 3"
_LLAMA_3_1 = "model card in github.com/meta-llama/llama-models; arXiv 2407.21783, table 3 and section 3.4"
_LLAMA_3_2 = "model card in github.com/meta-llama/llama-models"
_CODE_LLAMA = "arXiv 2308.12950, sections 2.2 and 2.4; model card in github.com/meta-llama/codellama"
_GPT2 = "Radford et al. 2019, table 2; sizes as corrected in github.com/openai/gpt-2"
_GPT3 = "arXiv 2005.14165, table 2.1"
_BERT = "arXiv 1810.04805, section 3 and appendix A.2"

STATED = {
    "llama-7b": Stated("LLaMA 1 7B", 7e9, 1e12, 2048, 3e-4, 82_432, "A100-80GB", _LLAMA_1),
    "llama-13b": Stated("LLaMA 1 13B", 13e9, 1e12, 2048, 3e-4, 135_168, "A100-80GB", _LLAMA_1),
    "llama-33b": Stated("LLaMA 1 33B", 33e9, 1.4e12, 2048, 1.5e-4, 530_432, "A100-80GB", _LLAMA_1),
    "llama-65b": Stated("LLaMA 1 65B", 65e9, 1.4e12, 2048, 1.5e-4, 1_022_362, "A100-80GB", _LLAMA_1),
    "llama-2-7b": Stated("Llama 2 7B", 7e9, 2e12, 4096, 3e-4, 184_320, "A100-80GB", _LLAMA_2),
    "llama-2-13b": Stated("Llama 2 13B", 13e9, 2e12, 4096, 3e-4, 368_640, "A100-80GB", _LLAMA_2),
    "llama-2-70b": Stated("Llama 2 70B", 70e9, 2e12, 4096, 1.5e-4, 1_720_320, "A100-80GB", _LLAMA_2),
    "llama-3-8b": Stated("Llama 3 8B", 8e9, 15e12, 8192, 3e-4, 1.3e6, "H100-80GB", _LLAMA_3),
    "llama-3-70b": Stated("Llama 3 70B", 70e9, 15e12, 8192, 1.5e-4, 6.4e6, "H100-80GB", _LLAMA_3),
    "llama-3.1-8b": Stated("Llama 3.1 8B", 8e9, 15e12, 8192, 3e-4, 1.46e6, "H100-80GB", _LLAMA_3_1),
    "llama-3.1-70b": Stated("Llama 3.1 70B", 70e9, 15e12, 8192, 1.5e-4, 7.0e6, "H100-80GB", _LLAMA_3_1),
    "llama-3.1-405b": Stated("Llama 3.1 405B", 405e9, 15.6e12, 8192, 8e-5, 30.84e6, "H100-80GB", _LLAMA_3_1),
    "llama-3.2-1b": Stated("Llama 3.2 1B", 1e9, 9e12, None, None, 370e3, "H100-80GB", _LLAMA_3_2),
    "llama-3.2-3b": Stated("Llama 3.2 3B", 3e9, 9e12, None, None, 460e3, "H100-80GB", _LLAMA_3_2),
    "codellama-7b": Stated("CodeLlama 7B", 7e9, 500e9, 4096, None, None, "A100-80GB", _CODE_LLAMA),
    "codellama-13b": Stated("CodeLlama 13B", 13e9, 500e9, 4096, None, None, "A100-80GB", _CODE_LLAMA),
    "codellama-34b": Stated("CodeLlama 34B", 34e9, 500e9, 4096, None, None, "A100-80GB", _CODE_LLAMA),
    "codellama-70b": Stated("CodeLlama 70B", 70e9, 1e12, 4096, None, None, "A100-80GB", _CODE_LLAMA),
    "gpt2-small": Stated("GPT-2 small", 124e6, None, 1024, None, None, None, _GPT2),
    "gpt2-medium": Stated("GPT-2 medium", 355e6, None, 1024, None, None, None, _GPT2),
    "gpt2-large": Stated("GPT-2 large", 774e6, None, 1024, None, None, None, _GPT2),
    "gpt2-xl": Stated("GPT-2 XL", 1.5e9, None, 1024, None, None, None, _GPT2),
    "gpt3-175b": Stated("GPT-3 175B", 175e9, 300e9, 2048, 0.6e-4, None, None, _GPT3),
    "bert-base": Stated("BERT base", 110e6, 128e9, 512, 1e-4, None, None, _BERT),
    "bert-large": Stated("BERT large", 340e6, 128e9, 512, 1e-4, None, None, _BERT),
}


class Correction(NamedTuple):
    """A line of the card, and what is to be said to it."""

    claim: str
    correction: str
    source: str
    models: tuple[str, ...]  # how the names of the models begin that it concerns


CORRECTIONS = (
    Correction(
        "LLaMA 1: 7B, 13B, 33B, 65B",
        "33B has 32.5 billion parameters. The paper's table says 65.2 billion for 65B; the shapes give 65.3",
        "arXiv 2302.13971, table 2; the shapes",
        ("llama-33b", "llama-65b"),
    ),
    Correction(
        "LLaMA 3: 8B, 70B, 405B",
        "Llama 3 (April 2024) had 8B and 70B; 405B came with Llama 3.1 (July 2024)",
        "model cards in github.com/meta-llama/llama3 and llama-models",
        ("llama-3-", "llama-3.1-"),
    ),
    Correction(
        "Context: LLaMA 4K-128K",
        "LLaMA 1 had 2K, Llama 2 has 4K, Llama 3 8K, and 3.1 and 3.2 have 128K",
        "arXiv 2307.09288, table 1; model cards in github.com/meta-llama/llama3 and llama-models",
        ("llama-",),
    ),
    Correction(
        "Context: GPT 8K-128K",
        "that is GPT-4 (8K) and GPT-4 Turbo (128K). GPT-2 has 1K and GPT-3 2K",
        "Radford et al. 2019; arXiv 2005.14165, section 2.1; OpenAI's announcements of March and November 2023",
        ("gpt",),
    ),
    Correction(
        "Weights: GPT closed",
        "GPT-2's are open, all four sizes; from GPT-3 on they are closed",
        "github.com/openai/gpt-2",
        ("gpt",),
    ),
    Correction(
        "Open weights: publicly available",
        "LLaMA 1's were given to researchers on request, under a non-commercial licence. Llama 2 and later ones have "
        "licences of their own, which allow commercial use on conditions",
        "model cards and licences in github.com/meta-llama",
        ("llama-",),
    ),
    Correction(
        "7B model competitive with GPT-3 (175B)",
        "the paper claims it of 13B: better than GPT-3 on most benchmarks",
        "arXiv 2302.13971, abstract",
        ("llama-7b", "llama-13b", "gpt3-"),
    ),
    Correction(
        "Trained on 1-1.4 trillion tokens",
        "LLaMA 1 was: 7B and 13B on 1.0, 33B and 65B on 1.4. Llama 2 was trained on 2, Llama 3 on more than 15",
        "arXiv 2302.13971, table 2; 2307.09288, table 1; model card in github.com/meta-llama/llama3",
        ("llama-",),
    ),
    Correction(
        "Data sources: Books, ArXiv, StackExchange (no shares given)",
        "LLaMA 1's mixture in full: CommonCrawl 67.0 %, C4 15.0, GitHub 4.5, Wikipedia 4.5, Books 4.5, ArXiv 2.5, "
        "StackExchange 2.0. Later models have other mixtures",
        "arXiv 2302.13971, table 1",
        ("llama-7b", "llama-13b", "llama-33b", "llama-65b"),
    ),
    Correction(
        "RMSNorm before attention (not after)",
        "before attention and before the feed-forward, and once more before the output matrix. GPT-2's norms, "
        "LayerNorm, stand there too",
        "arXiv 2302.13971, section 2.2; Radford et al. 2019, section 2.3",
        ("llama-", "gpt2-"),
    ),
    Correction(
        "SwiGLU: replaces ReLU in feed-forward",
        "ReLU is the first Transformer's; GPT-2, GPT-3 and BERT, with which the card compares, have GELU",
        "arXiv 1706.03762, equation 2; arXiv 1810.04805, appendix A.2; github.com/openai/gpt-2",
        ("llama-", "gpt", "bert-"),
    ),
    Correction(
        "No bias terms: removed from most linear layers",
        "from all of them, and from the norms: the counts above leave no room for one",
        "the shapes; model.py in github.com/meta-llama/llama",
        ("llama-", "codellama-"),
    ),
    Correction(
        "RoPE: enables length extrapolation",
        "beyond the length of its training RoPE alone fails; the angles must be rescaled, and the model is trained on. "
        "Code Llama raises theta to 1e6; Llama 3.1 slows slow rotations by 8, 3.2 by 32",
        "arXiv 2306.15595, abstract; 2308.12950, section 2.4; configurations in github.com/Lightning-AI/litgpt",
        ("llama-", "codellama-"),
    ),
)

# What is to be known of single rows of the table: how the models' names begin, and the text.
REMARKS = (
    (
        ("bert-",),
        "BERT is counted by its authors, as 110M and 340M, without the head of its pre-training: the encoder and the "
        "pooler that fine-tuning uses, which has a row of its own. The preset has the masked-LM head in the pooler's "
        "place. BERT reads both ways, so it writes no text and keeps no cache.",
    ),
    (
        ("bert-",),
        "BERT's tokens are the authors' 128,000 a batch over 1,000,000 steps. They also say that sequences had 128 "
        "tokens in 90 % of the steps, and 512, as is counted here, in the rest. It was trained on TPUs.",
    ),
    (
        ("gpt2-",),
        "GPT-2's paper gives 117M, 345M, 762M and 1542M; its repository calls that an error, and names 124M, 355M, "
        "774M and 1.5B. The number of training tokens is not stated.",
    ),
    (
        ("gpt3-",),
        "Layers of GPT-3 alternate between dense and locally banded sparse attention, which is not modelled here: all "
        "is counted as dense. The paper states 3.14e23 FLOPs for its training (arXiv 2005.14165, table D.1).",
    ),
    (
        ("llama-3-", "llama-3.1-", "llama-3.2-"),
        "15T stands for the stated 15T+, a lower bound; 9T for up to 9T, an upper one.",
    ),
    (
        ("llama-3-8b", "llama-3.1-8b", "llama-3-70b", "llama-3.1-70b"),
        "The GPU-hours of 8B and 70B imply far less utilisation than those of other models. The model cards call them "
        "the total GPU time required for training each model, and do not say what it holds besides.",
    ),
    (
        ("llama-3.1-",),
        "Llama 3.1 405B was trained on sequences of 8K, save 252M tokens at 4K and the last 800B at up to 128K (arXiv "
        "2407.21783, section 3.4), and 8K is counted for all. The paper reports 3.8e25 FLOPs, and 38 to 43 % MFU while "
        "the training ran (table 4).",
    ),
    (
        ("llama-3.2-",),
        "Llama 3.2 was cut out of larger models and trained on the outputs of Llama 3.1 8B and 70B; their arithmetic, "
        "86k GPU-hours, is not in the row, nor is the sequence length stated, for which 8K is counted.",
    ),
    (
        ("codellama-",),
        "Code Llama goes on from Llama 2: its tokens come on top of that 2T. Sequences of 16K came last, after 4K. "
        "GPU-hours are stated for all models together: 1.4M.",
    ),
)


def concerns(models, names):
    """Whether what is said of models, by the beginnings of their names, concerns one of these names."""
    return any(name.startswith(models) for name in names)
