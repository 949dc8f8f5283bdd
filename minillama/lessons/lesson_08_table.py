"""Checkers of lesson 08 on its table of models: parameters, arithmetic, and where attention overtakes."""

from ..catalogue.presets import PRESETS
from ..catalogue.sizes import parameter_count
from .checks import exercise

_OF_70B = ("embedding", "attention", "feed_forward", "norms", "output", "total")


@exercise("08", "70B, counted by hand", difficulty=1, minutes=10)
def count_70b(answer, trial):
    """answer() -> the parameters of Llama 2 70B: embedding, attention, feed_forward, norms, output, total."""
    C, L, F, V = 8192, 80, 28672, 32000
    counts = parameter_count(PRESETS["llama-2-70b"])
    embedding, attention, feed_forward, norms, output, total = (
        counts[part] for part in ("embedding", "attention", "feed-forward", "norms and biases", "head", "total")
    )
    got = trial.call(answer, returns=[(name, int) for name in _OF_70B])
    of_one = "this is one block: there are 80"
    mistakes = {
        "embedding": {
            "V is 32000 in Llama 2; 128256 is Llama 3's": 128256 * C,
            "the embedding has a row of C numbers for each token of the vocabulary; this is with the output matrix": (
                2 * V * C
            ),
        },
        "attention": {
            of_one: attention // L,
            "keys and values have 8 heads of 128, so w_k and w_v are (1024, 8192): this counts 64 heads": L * 4 * C * C,
            "the heads of keys and values are 128 wide: w_k and w_v have 8 of them, not one": L * (2 * C + 256) * C,
            "w_o has 64 heads as w_q has: only keys and values share": L * (C + 3 * 1024) * C,
            "w_q has 64 heads: only keys and values share": L * 4 * 1024 * C,
            "w_o is missing: what the heads give goes through a matrix to the stream": L * (C + 2 * 1024) * C,
            "there is a w_v as well as a w_k, each with 8 heads": L * (2 * C + 1024) * C,
        },
        "feed_forward": {
            of_one: feed_forward // L,
            "SwiGLU has three matrices, w_gate, w_up and w_down": L * 2 * F * C,
            "F is 28672; 22016 is the width of 65B": L * 3 * 22016 * C,
            "F is 28672, the width with multiplier and rounding, not 8/3 C": L * 3 * int(8 * C / 3) * C,
            "F is 28672, not 4 C": L * 3 * 4 * C * C,
        },
        "norms": {
            of_one: 2 * C,
            "the norm before the output matrix is missing": L * 2 * C,
            "a block has two norms, one before each layer": L * C + C,
            "a block has two norms, and one more comes before the output matrix": L * C,
            "RMSNorm has a weight and no bias": 2 * norms,
            "norms have C numbers each, in every block": 3 * C,
        },
        "output": {
            "Llama 2 is not tied: its output matrix has V C numbers of its own": 0,
            "V is 32000 in Llama 2; 128256 is Llama 3's": 128256 * C,
        },
        "total": {
            "the output matrix is missing in the total": total - output,
            "the norms are missing in the total": total - norms,
            "this is the stated size; asked for is the count": int(70e9),
        },
    }
    right = (embedding, attention, feed_forward, norms, output, total)
    for name, number, expected in zip(_OF_70B, got, right, strict=True):
        otherwise = "the total is the sum of the other five" if name == "total" else "multiply the shapes once more"
        trial.equal(f"{name} of 70B", int(number), expected, "count_70b()", mistakes[name], otherwise)


def _shape(rng):
    """V, C, L, H, K, F at random; K differs from H and from 1."""
    K, G, D = int(rng.integers(2, 5)), int(rng.integers(2, 4)), 2 * int(rng.integers(2, 7))
    V, L, F = (int(rng.integers(low, high)) for low, high in ((50, 300), (2, 7), (30, 200)))
    return V, K * G * D, L, K * G, K, F


@exercise("08", "The parameters of any LLaMA", difficulty=2, minutes=15)
def count_parameters(answer, trial):
    """answer(V, C, L, H, K, F, tied) -> the number of parameters, an int."""
    found = []
    for number in range(8):
        (V, C, L, H, K, F), tied = _shape(trial.rng), bool(number % 2)
        if number in (2, 3):
            K = H
        D, ends = C // H, V * C if tied else 2 * V * C
        attention, feed_forward, norms = 2 * C * C + 2 * C * K * D, 3 * C * F, 2 * C
        right = ends + L * (attention + feed_forward + norms) + C
        got = trial.call(answer, V, C, L, H, K, F, tied, returns=[("the count", int)])
        mistakes = {
            "w_k and w_v have K heads, not H: they are (K D, C), with D = C / H": right
            + L * (2 * C * C - 2 * C * K * D),
            "w_k and w_v have K heads of width D each: one head alone is counted": right - L * 2 * C * (K - 1) * D,
            "K appears where K D belongs: a key has D numbers for each of its K heads": right - L * 2 * C * K * (D - 1),
            "w_q and w_o have H heads; only keys and values have K": right - L * (2 * C * C - 2 * C * K * D),
            "w_o has H heads, as w_q has; only keys and values have K": right - L * (C * C - C * K * D),
            "w_o is missing: what the heads give goes through a matrix to the stream": right - L * C * C,
            "there is a w_v as well as a w_k": right - L * C * K * D,
            "SwiGLU has three matrices, w_gate, w_up and w_down": right - L * C * F,
            "the norm before the output matrix is missing": right - C,
            "a block has two norms, one before each layer": right - L * C,
            "a block has two norms, and one more comes before the output matrix": right - L * C - C,
            "the norms are missing: two in each block and one at the end, of C numbers": right - L * norms - C,
            "RMSNorm has a weight and no bias": right + L * norms + C,
            "LLaMA has no biases: matrices alone, and the weights of the norms": (
                right + L * (H * D + 2 * K * D + C + 2 * F + C)
            ),
            "this is one block: there are L": ends + attention + feed_forward + norms + C,
            "the blocks are counted L times, and the two ends too: they are there once": (
                L * (ends + attention + feed_forward + norms) + C
            ),
            "the last norm stands behind all blocks, once": right + (L - 1) * C,
            "tied is not looked at: an untied model has an output matrix of its own": right - (ends - V * C),
            "tied is not looked at: a tied model uses the embedding as its output matrix": right + 2 * V * C - ends,
            "tied and untied are exchanged": right + 3 * V * C - 2 * ends,
            "the embedding is missing: it is looked up, and counted all the same": right - V * C,
            "both ends are missing: the embedding, and the output matrix where it is not tied": right - ends,
            "the matrices of the heads are counted for each head: D = C / H is the width of one, H D = C of all": (
                right + L * (H - 1) * attention
            ),
        }
        case = f"count_parameters({V}, {C}, {L}, {H}, {K}, {F}, {tied})"
        what = f"{'tied' if tied else 'untied'}, {'K = H' if K == H else 'grouped heads'}"
        otherwise = "go through the table of shapes row by row, and print each term next to your own sum of 7B"
        found.append((what, int(got), right, case, mistakes, otherwise))
    trial.all_equal(found)
    config = PRESETS["llama-2-70b"]
    got = trial.call(answer, 32000, 8192, 80, 64, 8, 28672, False, returns=[("the count", int)])
    trial.equal("Llama 2 70B", int(got), parameter_count(config)["total"], "count_parameters of Llama 2 70B")


@exercise("08", "The arithmetic of training a token", difficulty=2, minutes=15)
def training_flops(answer, trial):
    """answer(V, C, L, H, K, F, T) -> FLOPs of training a token in a causal sequence of T, a number."""
    found = []
    for _ in range(8):
        V, C, L, H, K, F = _shape(trial.rng)
        T = 2 * int(trial.rng.integers(20, 200))
        block = 2 * C * C + 2 * C * K * (C // H) + 3 * C * F
        weights, scores, norms = V * C + L * block, 2 * T * C * L, (2 * L + 1) * C
        right = 3 * (2 * weights + scores)
        got = trial.call(answer, V, C, L, H, K, F, T, returns=[("the FLOPs", float)])
        kv = 2 * C * C - 2 * C * K * (C // H)
        mistakes = {
            "the embedding is looked up, which is no arithmetic: only the output matrix multiplies": right + 6 * V * C,
            "this is 6 N without attention's scores, and with the embedding": 6 * (weights + V * C + norms),
            "attention's scores and weighted sum are missing: 4 C for each position that is read": 6 * weights,
            "the output matrix is missing: V C products": right - 6 * V * C,
            "the output matrix multiplies once a token, not in each block": right + 6 * V * C * (L - 1),
            "a token of a causal sequence reads T / 2 positions on average; here it reads T": right + 3 * scores,
            "half of attention's part is missing: each of T / 2 positions costs 2 C for its score and 2 C in the sum": (
                right - 3 * scores // 2
            ),
            "the scores are made for each query head: H D = C numbers, not K D": right - 3 * (scores - scores * K // H),
            "the scores are counted in one block: there are L": right - 3 * (scores - scores // L),
            "this is one block: there are L": 3 * (2 * (V * C + block) + scores // L),
            "this is the forward alone: the backward forms two products for each of the forward": right // 3,
            "the backward forms two products for each of the forward, so the training is three forwards, not two": (
                2 * right // 3
            ),
            "the backward is two forwards; with the forward itself that makes three, not four": 4 * right // 3,
            "a weight is a multiplication and an addition, 2 FLOPs": right - 3 * weights,
            "all is counted as one operation where a multiplication and an addition are two": right // 2,
            "w_k and w_v have K heads, not H": right + 6 * L * kv,
            "SwiGLU has three matrices, w_gate, w_up and w_down": right - 6 * L * C * F,
            "norms are left out: their C numbers are no matrix": right + 6 * norms,
            "this counts the whole sequence; asked for is one token of it": right * T,
        }
        case = f"training_flops({V}, {C}, {L}, {H}, {K}, {F}, {T})"
        otherwise = (
            "2 for each weight of a matrix that multiplies, 4 C for each position read; and all of it three times"
        )
        found.append(("the FLOPs of training a token", round(float(got), 3), right, case, mistakes, otherwise))
    trial.all_equal(found)


@exercise("08", "Where attention overtakes", difficulty=2, minutes=15)
def crossing_length(answer, trial):
    """answer(C, F, gated, causal) -> the length of sequences at which scores cost what the feed-forward costs."""
    found = []
    for number in range(8):
        gated, causal = bool(number % 2), bool(number // 2 % 2)
        C, F = 4 * int(trial.rng.integers(3, 40)), 4 * int(trial.rng.integers(11, 90))
        matrices, reads = (3 if gated else 2), (2 if causal else 1)
        right = matrices * F / 2 * reads
        got = trial.call(answer, C, F, gated, causal, returns=[("the length", float)])
        mistakes = {
            "where attention is causal, a token reads T / 2 positions on average: this T is the number that it reads": (
                matrices * F / 2
            ),
            "a token reads T / 2 positions only where attention is causal; otherwise all T": matrices * F,
            "causal and not causal are exchanged": matrices * F / reads,
            "causal halves what is read, so it doubles the length; here it halves it": matrices * F / 2 / reads,
            "a gated feed-forward has three matrices": F * reads,
            "without a gate there are two matrices": 3 * F / 2 * reads,
            "gated and not gated are exchanged": (5 - matrices) * F / 2 * reads,
            "a position costs 2 C for its score and 2 C in the weighted sum; here one of them, or half of each": 2
            * right,
            "a weight of the feed-forward costs 2 FLOPs, as an entry of a score does": right / 2,
            "C and F are exchanged: both sides have a factor C, which falls out": matrices * C / 2 * reads,
            "C stands on both sides: each score is C products in all heads, so it falls out": right * C,
            "C stands on both sides; here it divides once too often": round(right / C, 6),
        }
        case = f"crossing_length({C}, {F}, {gated}, {causal})"
        what = f"{'gated' if gated else 'no gate'}, {'causal' if causal else 'reads both ways'}"
        otherwise = (
            "write down the FLOPs of both for one token, 4 C for each position read and 2 a weight, and equate them"
        )
        found.append((what, round(float(got), 6), right, case, mistakes, otherwise))
    trial.all_equal(found)
