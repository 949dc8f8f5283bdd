"""Checkers of lesson 00."""

import numpy as np

from .checks import Wrong, exercise


@exercise("00", "Windows of a stream", difficulty=1, minutes=10)
def windows(answer, trial):
    """answer(tokens, T, offset) -> ids (B, T), targets (B, T): all whole windows from offset on."""
    for case in range(6):
        T, B, offset = (int(n) for n in trial.rng.integers((2, 3, 1), (6, 6, 5)))
        B += B == T  # a transposed answer shows in its shape
        spare = 0 if case == 0 else int(trial.rng.integers(T))  # 0: the last target is the last token of the stream
        tokens = trial.rng.permutation(1000)[: offset + B * T + 1 + spare]  # all different: a mistake cannot hide
        ids, targets = trial.call(answer, tokens, T, offset, returns=[("ids", np.ndarray), ("targets", np.ndarray)])
        places = offset + T * np.arange(B)[:, None] + np.arange(T)
        _number_of_windows("ids", ids, tokens, places, offset)
        _number_of_windows("targets", targets, tokens, places + 1, offset)
        trial.same(
            "a window of ids is T tokens of the stream",
            ids,
            tokens[places],
            {
                "the offset is not used: the first window begins with tokens[offset]": tokens[places - offset],
                "the windows overlap: the next one begins T tokens later": tokens[_clipped(places, tokens, offset, 1)],
                "the windows are T + 1 apart, so that one token of each is never predicted: they overlap by the token "
                "that is the target of one and the input of the next": tokens[_clipped(places, tokens, offset, T + 1)],
                "ids are shifted, and targets are not: the target is the token after the input": tokens[places + 1],
                "neighbours of the stream stand in a column: they belong side by side, in a row": tokens[
                    offset + np.arange(B)[:, None] + B * np.arange(T)
                ],
            },
            "ids must be tokens[offset], tokens[offset + 1], ... in windows of T",
        )
        trial.same(
            "a target is the token after its input",
            targets,
            tokens[places + 1],
            {
                "the targets are the inputs: each token is asked to predict itself, and the answer leaks into the "
                "question. Shift by one": tokens[places],
                "the targets are the tokens before the inputs: shift the other way": tokens[places - 1],
                "the targets are two tokens ahead: one too many": tokens[np.minimum(places + 2, len(tokens) - 1)],
                "the targets are shifted around within a window (np.roll): the last one must come from the next "
                "window": np.roll(tokens[places], -1, axis=1),
                "the targets are shifted to the next window, not to the next token": tokens[
                    np.minimum(places + T, len(tokens) - 1)
                ],
            },
            "the last target of a window is the first token of the next: look at the ends of the windows",
        )
        trial.same("no token is predicted twice", np.unique(targets).size, B * T)


def _number_of_windows(name, got, tokens, places, offset):
    B, T = places.shape
    if got.dtype.kind not in "iu":
        raise Wrong(f"{name} must hold integers, as tokens does (np.zeros makes floats); its dtype is {got.dtype}")
    if got.shape == (B, T):
        return
    evidence = f"{len(tokens)} tokens, T = {T}, offset = {offset}: expected shape {(B, T)}, got {got.shape}"
    if got.shape == (T, B):
        raise Wrong(f"{name} is transposed: a window is a row", evidence)
    if got.ndim == 2 and got.shape[1] == T + 1:
        raise Wrong(f"{name} has T + 1 columns: a window of T + 1 tokens makes T inputs and T targets", evidence)
    if got.ndim == 2 and got.shape[1] == T - 1:
        raise Wrong(f"{name} has T - 1 columns: to have T pairs, a window needs T + 1 tokens of the stream", evidence)
    if got.ndim == 2 and got.shape[1] == T and got.shape[0] > B + 1:
        raise Wrong(f"{name} has too many windows: they overlap; the next one begins T tokens later", evidence)
    if got.ndim == 2 and got.shape[0] < B:
        if got.shape[1] == T and np.array_equal(got, tokens[places[: len(got)]]):
            hint = f"{name} has {len(got)} windows, and {B} are whole: B windows need B T + 1 tokens from the offset on"
            raise Wrong(f"{hint}, not (B + 1) T", evidence)
        raise Wrong(
            f"{name} has {got.shape[0]} windows, and {B} are whole: they begin T tokens apart, not T + 1 apart, as "
            f"the last target of one is the first input of the next",
            evidence,
        )
    raise Wrong(
        f"{name} has {got.shape[0] if got.ndim else 'no'} windows, and {B} are whole: B windows need B T + 1 tokens "
        f"from the offset on, as the last input needs a target",
        evidence,
    )


def _clipped(places, tokens, offset, stride):
    B, T = places.shape
    return np.minimum(offset + stride * np.arange(B)[:, None] + np.arange(T), len(tokens) - 1)


_TEXTS = ("naïve café", "Grüße aus Köln", "数据 and Zahlen", "πάντα ῥεῖ", "déjà vu 🙂", "smörgåsbord, żółw")


@exercise("00", "Bits per byte", difficulty=1, minutes=10)
def bits_per_byte(answer, trial):
    """answer(losses, text) -> float: losses (N,) in nats, one for each token of the text, whatever the tokens are."""
    for _ in range(4):
        text = " ".join(trial.rng.permutation(list(_TEXTS))[: trial.rng.integers(1, 4)].tolist())
        characters, size = len(text), len(text.encode())
        losses = trial.rng.uniform(0.5, 4, trial.rng.integers(3, characters - 2))
        nats = losses.sum()
        got = trial.call(answer, losses, text, returns=[("bits per byte", float)])
        trial.same(
            "bits per byte of a text that is not ASCII",
            got,
            nats / np.log(2) / size,
            {
                "this is bits per character: a character may have several bytes in UTF-8. Count the bytes with "
                "len(text.encode())": nats / np.log(2) / characters,
                "this is in nats: a bit is ln 2 nats, so divide by ln 2": nats / size,
                "multiplied by ln 2: a nat is more than a bit (1.44 of them), so the number must grow": nats
                * np.log(2)
                / size,
                "the mean over the tokens, in bits: it is bits per token. Divide the sum by the number of bytes": nats
                / np.log(2)
                / len(losses),
                "nats per character: neither the unit nor what it is counted by is right": nats / characters,
                "divided by the number of tokens and by the bytes: the sum of the losses, not their mean": nats
                / np.log(2)
                / len(losses)
                / size,
                "the logarithm to base 10: that unit is the hartley; bits have base 2": nats / np.log(10) / size,
                "this is a perplexity: the exponential of the loss": np.exp(nats / size),
                "2 to the power of the result is a perplexity per byte; the bits are its exponent": 2
                ** (nats / np.log(2) / size),
            },
            "bits per byte = the sum of the losses in bits / the number of bytes in UTF-8",
        )
        halves = np.repeat(losses / 2, 2)
        got_halves = trial.call(answer, halves, text, returns=[("bits per byte", float)])
        trial.same(
            "the same for tokens half as long",
            got_halves,
            got,
            otherwise="it changes with the number of tokens, though the text and its probability are the same: only "
            "the sum of the losses and the number of bytes may matter",
        )
    size = int(trial.rng.integers(5, 30))
    uniform = trial.call(answer, np.full(size, np.log(256)), "x" * size, returns=[("bits per byte", float)])
    trial.same("a uniform guess of one byte of 256", uniform, 8.0)


@exercise("00", "The logarithm of the softmax, for any leading axes", difficulty=2, minutes=15)
def log_softmax(answer, trial):
    """answer(logits) -> array of the same shape: log of the softmax over the last axis."""
    for leading in ((), (3,), (2, 4), (2, 1, 3)):
        V = int(trial.rng.integers(5, 9))
        z = trial.rng.normal(size=(*leading, V)) * 2
        y = trial.call(answer, z, returns=[("log_softmax(logits)", z.shape)])
        expected = _log_softmax(z)
        mistakes = {
            "this is the softmax: its logarithm is missing": np.exp(expected),
            "the sign: the logarithm of a probability is negative": -expected,
            "this is z minus the largest only: the logarithm of the sum of exponentials is still to be subtracted": z
            - z.max(axis=-1, keepdims=True),
            "this is the logarithm of the denominator: subtract it from z": z - expected,
            "the largest logit is subtracted from z only: it has to leave the exponential too": (
                expected - z.max(axis=-1, keepdims=True)
            ),
            "the sum is over all of the array: each row is a distribution of its own (axis=-1)": z
            - np.log(np.exp(z).sum()),
            "the logarithm has base 2: losses are in nats, with the natural logarithm": expected / np.log(2),
            "the mean of the exponentials in place of their sum": expected + np.log(V),
            "the largest logit is subtracted in the exponential only: take it from z too, or add it to the log": (
                expected + z.max(axis=-1, keepdims=True)
            ),
        }
        if leading:
            first = np.log(np.exp(z).sum(axis=0, keepdims=True))
            mistakes["the sum runs over the first axis: the tokens of the vocabulary are the last (axis=-1)"] = (
                z - first
            )
        if len(leading) > 1:
            mistakes["the sum runs over axis 1: with more leading axes the last one is axis=-1"] = z - np.log(
                np.exp(z).sum(axis=1, keepdims=True)
            )
        trial.same(
            "1 axis" if z.ndim == 1 else f"{z.ndim} axes",
            y,
            expected,
            mistakes,
            "compare with z - log(sum over v of exp(z_v)). If the difference is small: is something added to a "
            "probability, to avoid log(0)? Then work without probabilities",
        )
        trial.same("probabilities add up to 1", np.exp(y).sum(axis=-1), np.ones(leading))
        shifts = trial.rng.normal(size=(*leading, 1)) * 3
        shifted = trial.call(answer, z + shifts, returns=[("log_softmax(logits)", z.shape)])
        trial.same("a constant added to a row changes nothing", shifted, y, tolerance=1e-9)
    _large(answer, trial)
    z = trial.rng.normal(size=(4, 7)).astype(np.float32)
    y = trial.call(answer, z, returns=[("log_softmax(logits)", z.shape)])
    trial.same("float32 stays float32", y, _log_softmax(z.astype(np.float64)), tolerance=1e-4)


def _large(answer, trial):
    replaced = (
        "a small probability was replaced, or the logits were clipped, to avoid log(0) or inf. There is no need to: "
        "exp(-800) is 0 as a float, but its logarithm is -800"
    )
    rows = trial.rng.normal(size=(3, 6)) + np.array([[0.0], [1000.0], [-1000.0]])
    hint = (
        "not stable: exp(1000) is inf, and exp(-1000) is 0, whose logarithm is -inf. Subtract from each row its own "
        "largest logit first; the largest of the whole array does not do"
    )
    y = trial.call(answer, rows, returns=[("log_softmax(logits)", rows.shape)], not_finite=hint)
    what = "logits near 1000 and -1000 in one batch"
    trial.same(what, y, _log_softmax(rows), otherwise=replaced, tolerance=1e-9)
    row = np.zeros((1, 6))
    row[0, trial.rng.integers(6)] = trial.rng.uniform(1000, 1200)
    hint = (
        "not stable: subtract the largest logit, not the mean or another number; and do not take the logarithm of the "
        "softmax, as exp(-1000) is 0. Keep the difference z - log(sum)"
    )
    y = trial.call(answer, row, returns=[("log_softmax(logits)", row.shape)], not_finite=hint)
    trial.same("logits 1000 below the largest", y, _log_softmax(row), otherwise=replaced, tolerance=1e-9)


def _log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@exercise("00", "A bigram that falls back on the unigram", difficulty=2, minutes=20)
def interpolated_bigram(answer, trial):
    """answer(tokens, V, weight) -> (V, V): row i is weight p(j | i) + (1 - weight) p(j); if i has no successor p(j)."""
    for case in range(6):
        V, weight = int(trial.rng.integers(4, 8)), float(trial.rng.uniform(0.55, 0.95))
        tokens = trial.rng.choice(V - 1, size=40, p=trial.rng.dirichlet(np.ones(V - 1) * 3))
        # Nothing follows V - 1: it is the last token and the only one, or does not occur at all.
        last = tokens[:1] if case % 2 else [V - 1]
        tokens = np.concatenate([tokens, np.repeat(tokens[:1], 4), last])
        C = np.zeros((V, V))
        np.add.at(C, (tokens[:-1], tokens[1:]), 1)
        unigram = np.bincount(tokens, minlength=V) / len(tokens)
        P = trial.call(answer, tokens, V, weight, returns=[("the table of probabilities", (V, V))])
        expected = _interpolated(C, unigram, weight)
        once = np.zeros((V, V))
        once[tokens[:-1], tokens[1:]] += 1
        seen = C.sum(axis=1, keepdims=True)
        bigram = C / np.where(seen == 0, 1, seen)
        occurs = np.maximum(1, np.bincount(tokens, minlength=V))[:, None]
        uniform_rows = np.where(seen > 0, expected, 1 / V)
        mistakes = {
            "pairs are counted once only: C[a, b] += 1 with arrays a and b adds 1 to a place even if it stands there "
            "many times; use np.add.at": _interpolated(once, unigram, weight),
            "the table is transposed: row i must hold what follows i": expected.T,
            "row i holds what stands before i: p(previous | next). The first of a pair is the row, the second the "
            "column": _interpolated(C.T, unigram, weight),
            "columns are normalised: p(previous | next), not p(next | previous)": weight
            * C
            / np.maximum(1, C.sum(axis=0))
            + (1 - weight) * unigram,
            "columns are divided by the sums of rows: without keepdims=True the sums have shape (V,), and NumPy takes "
            "them for a row": np.where(
                seen > 0, weight * C / np.maximum(1, seen[:, 0]) + (1 - weight) * unigram, unigram
            ),
            "p(j) runs down the columns: j is the column, so the unigram is the same in each row": np.where(
                seen > 0, weight * bigram + (1 - weight) * unigram[:, None], unigram
            ),
            "a row is divided by how often its token occurs: the last token of all has no successor, so divide by the "
            "number of pairs": np.where(seen > 0, weight * C / occurs + (1 - weight) * unigram, unigram),
            "the weight belongs to the bigram, and 1 - weight to the unigram": _interpolated(C, unigram, 1 - weight),
            "the row of a token that nothing followed adds up to 1 - weight: there the unigram has to stand alone": (
                weight * bigram + (1 - weight) * unigram
            ),
            "the row of a token that nothing followed is uniform: the unigram knows more": uniform_rows,
            "the bigram is not multiplied by the weight": np.where(seen > 0, bigram + (1 - weight) * unigram, unigram),
            "the unigram is not multiplied by 1 - weight": np.where(seen > 0, weight * bigram + unigram, unigram),
            "the two are added up: weigh them, so that a row adds up to 1": np.where(
                seen > 0, bigram + unigram, unigram
            ),
            "the mean of the two was taken: the weight says how much of each": _interpolated(C, unigram, 0.5),
            "this is the bigram alone: mix in the unigram": np.where(seen > 0, bigram, unigram),
            "counts of pairs are divided by the number of all pairs: p(previous and next). Divide each row by its own "
            "sum": weight * C / C.sum() + (1 - weight) * unigram,
            "the unigram is added to the counts, or the result is normalised again: mix probabilities, not counts": (
                (weight * C + (1 - weight) * unigram) / (weight * C + (1 - weight) * unigram).sum(axis=1, keepdims=True)
            ),
            "the unigram leaves out the last token: it is the share of a token among all of them": _interpolated(
                C, np.bincount(tokens[:-1], minlength=V) / (len(tokens) - 1), weight
            ),
            "the unigram leaves out the first token: it is the share of a token among all of them": _interpolated(
                C, np.bincount(tokens[1:], minlength=V) / (len(tokens) - 1), weight
            ),
        }
        trial.that(
            "no probability is negative", np.all(P >= 0), "a probability is negative", f"the smallest is {P.min():.3g}"
        )
        trial.same(
            "weight p(j | i) + (1 - weight) p(j)",
            P,
            expected,
            mistakes,
            "compare with weight * C[i, j] / sum of row i + (1 - weight) * share of j among the tokens",
        )
        trial.same("each row adds up to 1", P.sum(axis=1), np.ones(V))
        alone = trial.call(answer, tokens, V, 0.0, returns=[("the table of probabilities", (V, V))])
        trial.same("weight 0 gives the unigram", alone, np.tile(unigram, (V, 1)))


def _interpolated(C, unigram, weight):
    seen = C.sum(axis=1, keepdims=True)
    mixed = weight * C / np.where(seen == 0, 1, seen) + (1 - weight) * unigram
    return np.where(seen > 0, mixed, unigram)
