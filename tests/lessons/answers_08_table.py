"""Right and wrong answers to the exercises of lesson 08 on the table of models."""

from minillama.catalogue.sizes import parameter_count, training_flops_per_token
from minillama.config import Config

RIGHT = {}  # exercise -> list of functions
WRONG = {}  # exercise -> list of (function, a part of the hint that it must get)


# ---- count_70b


def _70b(ends=1, attention=None, ffn=None, norms=None, output=None, total=None):
    """count_70b with some numbers replaced; total: of what is left."""
    V, C, L, F = 32000, 8192, 80, 28672
    numbers = {
        "embedding": ends * V * C,
        "attention": L * (2 * C * C + 2 * 1024 * C) if attention is None else attention,
        "feed-forward": L * 3 * F * C if ffn is None else ffn,
        "norms": (2 * L + 1) * C if norms is None else norms,
        "output": V * C if output is None else output,
    }
    return lambda: (*numbers.values(), sum(numbers.values()) if total is None else total)


def count_70b_typed():
    return 262_144_000, 12_079_595_520, 56_371_445_760, 1_318_912, 262_144_000, 68_976_648_192


def count_70b_of_a_config():
    counts = parameter_count(Config(32000, 8192, 80, 64, 8, 28672))
    return [counts[part] for part in ("embedding", "attention", "feed-forward", "norms and biases", "head", "total")]


_C, _L, _F = 8192, 80, 28672
RIGHT["count_70b"] = [_70b(), count_70b_typed, count_70b_of_a_config]
WRONG["count_70b"] = [
    (_70b(ends=2), "with the output matrix"),
    (_70b(ends=128256 / 32000), "must be of type int"),
    (_70b(ends=4), "multiply the shapes once more"),  # not listed
    (_70b(attention=2 * _C * _C + 2 * 1024 * _C), "this is one block"),
    (_70b(attention=_L * 4 * _C * _C), "this counts 64 heads"),
    (_70b(attention=_L * (2 * _C * _C + 2 * 128 * _C)), "8 of them, not one"),
    (_70b(attention=_L * (_C * _C + 3 * 1024 * _C)), "w_o has 64 heads"),
    (_70b(attention=_L * 4 * 1024 * _C), "w_q has 64 heads"),
    (_70b(attention=_L * (_C * _C + 2 * 1024 * _C)), "w_o is missing"),
    (_70b(attention=_L * (2 * _C * _C + 1024 * _C)), "as well as a w_k"),
    (_70b(ffn=3 * _F * _C), "this is one block"),
    (_70b(ffn=_L * 2 * _F * _C), "three matrices"),
    (_70b(ffn=_L * 3 * 22016 * _C), "the width of 65B"),
    (_70b(ffn=_L * 3 * 21845 * _C), "not 8/3 C"),
    (_70b(ffn=_L * 12 * _C * _C), "not 4 C"),
    (_70b(norms=2 * _C), "this is one block"),
    (_70b(norms=_L * 2 * _C), "the norm before the output matrix"),
    (_70b(norms=_L * _C + _C), "a block has two norms, one before each layer"),
    (_70b(norms=_L * _C), "and one more"),
    (_70b(norms=2 * (2 * _L + 1) * _C), "no bias"),
    (_70b(norms=3 * _C), "in every block"),
    (_70b(output=0), "not tied"),
    (_70b(output=128256 * _C), "Llama 3's"),
    (_70b(total=70_000_000_000), "stated size"),
    (_70b(total=68_976_648_192 - 262_144_000), "the output matrix is missing"),
    (_70b(total=68_976_648_192 - 1_318_912), "the norms are missing"),
    (_70b(total=1), "the sum of the other five"),
    (lambda: 68_976_648_192, "must return 6 things"),
]


# ---- count_parameters


def parameters_in_a_line(V, C, L, H, K, F, tied):
    return (1 if tied else 2) * V * C + L * (2 * C * C + 2 * C * C * K // H + 3 * C * F + 2 * C) + C


def parameters_of_shapes(V, C, L, H, K, F, tied):
    D = C // H
    block = [(H * D, C), (K * D, C), (K * D, C), (C, H * D), (F, C), (F, C), (C, F), (C, 1), (C, 1)]
    shapes = [(V, C), *block * L, (C, 1)] + ([] if tied else [(V, C)])
    return sum(rows * columns for rows, columns in shapes)


def parameters_of_a_config(V, C, L, H, K, F, tied):
    return parameter_count(Config(V, C, L, H, K, F, tied=tied))["total"]


RIGHT["count_parameters"] = [parameters_in_a_line, parameters_of_shapes, parameters_of_a_config]


def _parameters(kv=None, q=1, o=1, k=2, matrices=3, norms=2, last=1, blocks=None, ends=None, once=True, bias=0):
    """count_parameters with terms replaced; kv: rows of w_k; ends: matrices of V C; once: they are outside the loop."""

    def answer(V, C, L, H, K, F, tied):
        D = C // H
        width = K * D if kv is None else kv(C, H, K, D)
        attention = ((q if q == 1 else width / C) + (o if o in (0, 1) else width / C)) * C * C + k * C * width
        inside = round(attention) + matrices * C * F + norms * C + bias * (2 * C + 2 * K * D + 2 * F + C)
        outside = (ends(tied) if ends else (1 if tied else 2)) * V * C
        n = L if blocks is None else blocks
        return outside + n * inside + last * C if once else n * (outside + inside) + last * C

    return answer


def norm_in_each_block(V, C, L, H, K, F, tied):
    return parameters_in_a_line(V, C, L, H, K, F, tied) + (L - 1) * C


def for_each_head(V, C, L, H, K, F, tied):
    D = C // H
    return (1 if tied else 2) * V * C + L * (H * (2 * C * C + 2 * C * K * D) + 3 * C * F + 2 * C) + C


def wrong_for_70b(*shape):
    return parameters_in_a_line(*shape) + (shape[1] == 8192)


WRONG["count_parameters"] = [
    (_parameters(kv=lambda C, H, K, D: C), "w_k and w_v have K heads, not H"),
    (_parameters(kv=lambda C, H, K, D: C // K * K), "w_k and w_v have K heads, not H"),  # D taken as C / K
    (_parameters(kv=lambda C, H, K, D: D), "one head alone"),
    (_parameters(kv=lambda C, H, K, D: K), "K D belongs"),
    (_parameters(q="kv", o="kv"), "w_q and w_o have H heads"),
    (_parameters(o="kv"), "w_o has H heads"),
    (_parameters(o=0), "w_o is missing"),
    (_parameters(k=1), "as well as a w_k"),
    (_parameters(matrices=2), "three matrices"),
    (_parameters(last=0), "before the output matrix is missing"),
    (_parameters(norms=1), "one before each layer"),
    (_parameters(norms=1, last=0), "and one more"),
    (_parameters(norms=0, last=0), "the norms are missing"),
    (_parameters(norms=4, last=2), "a weight and no bias"),
    (_parameters(bias=1), "no biases"),
    (_parameters(blocks=1), "this is one block"),
    (_parameters(once=False), "they are there once"),
    (norm_in_each_block, "behind all blocks"),
    (_parameters(ends=lambda tied: 1), "has an output matrix of its own"),
    (_parameters(ends=lambda tied: 2), "uses the embedding"),
    (_parameters(ends=lambda tied: 1 + tied), "exchanged"),
    (_parameters(ends=lambda tied: 1 - tied), "the embedding is missing"),
    (_parameters(ends=lambda tied: 0), "both ends are missing"),
    (for_each_head, "for each head"),
    (lambda V, C, L, H, K, F, tied: 12 * L * C * C, "row by row"),  # not listed
    (lambda *shape: float(parameters_in_a_line(*shape)), "must be of type int"),
    (wrong_for_70b, "Llama 2 70B does not hold"),
]


# ---- training_flops


def flops_of_a_config(V, C, L, H, K, F, T):
    return training_flops_per_token(Config(V, C, L, H, K, F, context=max(2, T)), T)


def flops_in_steps(V, C, L, H, K, F, T):
    D = C // H
    forward = 2 * V * C
    for _ in range(L):
        forward += 2 * (C * H * D + 2 * C * K * D + H * D * C) + 2 * 3 * C * F
        forward += H * (2 * D + 2 * D) * T / 2
    return forward * 3


def flops_from_the_count(V, C, L, H, K, F, T):
    multiplied = parameters_in_a_line(V, C, L, H, K, F, True) - (2 * L + 1) * C  # tied: V C once
    return 6 * multiplied + 6 * T * C * L


def _flops(
    embedding=0, output=1, outputs_in=None, kv=None, reads=0.5, each=4, heads="H", blocks=None, score_blocks=None,
    passes=3, ffn=3, norms=0, per_weight=2, times=1,
):  # fmt: skip
    def answer(V, C, L, H, K, F, T):
        D, n = C // H, L if blocks is None else blocks
        width = K * D if kv is None else C
        weights = n * (2 * C * C + 2 * C * width + ffn * C * F) + embedding * V * C + norms * (2 * L + 1) * C
        weights += output * V * C * (L if outputs_in else 1)
        m = n if score_blocks is None else score_blocks
        scores = each * reads * T * (C if heads == "H" else K * D) * m
        return passes * (per_weight * weights + scores) * (T if times == "T" else times)

    return answer


RIGHT["training_flops"] = [flops_of_a_config, flops_in_steps, flops_from_the_count]
WRONG["training_flops"] = [
    (_flops(embedding=1), "is looked up"),
    (_flops(embedding=1, norms=1, each=0), "6 N without"),
    (_flops(each=0), "are missing"),
    (_flops(output=0), "the output matrix is missing"),
    (_flops(outputs_in="blocks"), "not in each block"),
    (_flops(reads=1), "here it reads T"),
    (_flops(reads=0.25), "half of attention's part"),
    (_flops(each=2), "half of attention's part"),
    (_flops(heads="K"), "for each query head"),
    (_flops(score_blocks=1), "counted in one block"),
    (_flops(blocks=1), "this is one block"),
    (_flops(passes=1), "the forward alone"),
    (_flops(passes=2), "not two"),
    (_flops(passes=4), "not four"),
    (_flops(per_weight=1), "a multiplication and an addition, 2 FLOPs"),
    (_flops(per_weight=1, each=2), "where a multiplication and an addition are two"),
    (_flops(kv="C"), "w_k and w_v have K heads"),
    (_flops(ffn=2), "three matrices"),
    (_flops(norms=1), "norms are left out"),
    (_flops(times="T"), "the whole sequence"),
    (_flops(passes=5), "2 for each weight"),  # not listed
]


# ---- crossing_length


def crossing_formula(C, F, gated, causal):
    return (3 if gated else 2) * F / 2 * (2 if causal else 1)


def crossing_from_the_costs(C, F, gated, causal):
    feed_forward, position = 2 * (2 + gated) * C * F, 4 * C
    return feed_forward / position / (0.5 if causal else 1)


def crossing_by_halving(C, F, gated, causal):
    low, high = 0.0, 100.0 * F
    while high - low > 1e-9 * F:
        middle = (low + high) / 2
        reads = middle / 2 if causal else middle
        low, high = (middle, high) if 4 * reads * C < 2 * (3 if gated else 2) * C * F else (low, middle)
    return low


def _crossing(matrices=lambda gated: 3 if gated else 2, reads=lambda causal: 0.5 if causal else 1, each=4, weight=2):
    return lambda C, F, gated, causal: weight * matrices(gated) * F / (each * reads(causal))


RIGHT["crossing_length"] = [crossing_formula, crossing_from_the_costs, crossing_by_halving]
WRONG["crossing_length"] = [
    (_crossing(reads=lambda causal: 1), "this T is the number that it reads"),
    (_crossing(reads=lambda causal: 0.5), "otherwise all T"),
    (_crossing(reads=lambda causal: 1 if causal else 0.5), "causal and not causal are exchanged"),
    (_crossing(reads=lambda causal: 2 if causal else 1), "here it halves it"),
    (_crossing(matrices=lambda gated: 2), "a gated feed-forward has three"),
    (_crossing(matrices=lambda gated: 3), "without a gate"),
    (_crossing(matrices=lambda gated: 2 if gated else 3), "gated and not gated"),
    (_crossing(each=2), "one of them, or half of each"),
    (_crossing(weight=1), "costs 2 FLOPs"),
    (lambda C, F, gated, causal: crossing_formula(F, C, gated, causal), "C and F are exchanged"),
    (lambda C, F, gated, causal: crossing_formula(C, F, gated, causal) * C, "it falls out"),
    (lambda C, F, gated, causal: crossing_formula(C, F, gated, causal) / C, "once too often"),
    (lambda C, F, gated, causal: 4.0 * C, "equate them"),  # not listed
]
