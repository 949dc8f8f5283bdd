"""One causal attention head, trained on two little tasks for lesson 05: a lookup, and digits that nobody can guess.

The model: q, k, v = x W for three matrices W, then attention, then a fourth matrix to the logits of 8 digits. On
request it makes one of the usual mistakes with its mask, forward and backward alike.
"""

import numpy as np

DIGITS = 8
LENGTH = 8
MASKINGS = ("causal", "zero", "after", "next")  # right; scores set to 0; weights set to 0 after the softmax; off by one


def lookup_task(rng, texts):
    """-> x (texts, 8, 24), answers (texts, 8), places (texts, 8)

    Position t writes an entry, a letter and a digit, and asks for a letter that stands at one of the positions 0 to t:
    each is a one-hot vector of 8, and x has the three side by side. The answer is the digit that stands with that
    letter, at position places[t]. The letters of a text are all different.
    """
    letters = np.array([rng.permutation(LENGTH) for _ in range(texts)])
    digits = rng.integers(DIGITS, size=(texts, LENGTH))
    places = (rng.random((texts, LENGTH)) * np.arange(1, LENGTH + 1)).astype(int)
    wanted = np.take_along_axis(letters, places, axis=1)
    x = np.concatenate([np.eye(LENGTH)[letters], np.eye(DIGITS)[digits], np.eye(LENGTH)[wanted]], axis=-1)
    return x, np.take_along_axis(digits, places, axis=1), places


def dice_task(rng, texts):
    """-> x (texts, 8, 16), answers (texts, 8): digits drawn evenly, and the answer is the digit of the next position

    x has the digit and the number of the position, as one-hot vectors side by side.
    """
    digits = rng.integers(DIGITS, size=(texts, LENGTH + 1))
    positions = np.broadcast_to(np.eye(LENGTH), (texts, LENGTH, LENGTH))
    return np.concatenate([np.eye(DIGITS)[digits[:, :-1]], positions], axis=-1), digits[:, 1:]


def gradients(matrices, x, answers, mask="causal"):
    """The mean loss in nats, the gradients of the four matrices, and the weights p and the scores' gradient ds

    matrices: three of (F, D) and one of (D, 8); x (B, T, F), answers (B, T) -> loss, [4 gradients], p and ds (B, T, T).
    """
    q, k, v = (x @ w for w in matrices[:3])
    root, past = q.shape[-1] ** 0.5, np.tri(x.shape[1], k=1 if mask == "next" else 0, dtype=bool)
    scores = q @ k.swapaxes(1, 2) / root
    if mask != "after":
        scores = np.where(past, scores, 0 if mask == "zero" else -np.inf)
    p = _softmax(scores)
    read = np.where(past, p, 0) if mask == "after" else p  # what multiplies the values
    o = read @ v
    shares = _softmax(o @ matrices[3])
    loss = -np.log(np.take_along_axis(shares, answers[..., None], axis=-1)).mean()

    dlogits = (shares - np.eye(DIGITS)[answers]) / answers.size
    do = dlogits @ matrices[3].T
    dp = do @ v.swapaxes(1, 2)
    if mask == "after":
        dp = np.where(past, dp, 0)
    ds = p * (dp - np.sum(dp * p, axis=-1, keepdims=True))
    if mask == "zero":
        ds = np.where(past, ds, 0)
    dqkv = ds @ k / root, ds.swapaxes(1, 2) @ q / root, read.swapaxes(1, 2) @ do
    dmatrices = [np.einsum("btf,btd->fd", x, gradient) for gradient in dqkv]
    return loss, [*dmatrices, np.einsum("btd,btv->dv", o, dlogits)], p, ds


def train(task, seed, steps, mask="causal", width=16, texts=32, lr=0.02):
    """The four matrices after `steps` steps of Adam (Kingma and Ba 2014, arXiv 1412.6980), and the loss at each."""
    rng = np.random.default_rng(seed)
    features = task(rng, 1)[0].shape[-1]
    matrices = [rng.normal(size=(features, width)) * features**-0.5 for _ in range(3)]
    matrices.append(rng.normal(size=(width, DIGITS)) * width**-0.5)
    first, second, losses = [0.0] * 4, [0.0] * 4, []
    for step in range(1, steps + 1):
        x, answers = task(rng, texts)[:2]
        loss, dmatrices, _, _ = gradients(matrices, x, answers, mask)
        losses.append(loss)
        for i, dw in enumerate(dmatrices):
            first[i], second[i] = 0.9 * first[i] + 0.1 * dw, 0.99 * second[i] + 0.01 * dw**2
            matrices[i] -= lr * first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-8)
    return matrices, np.array(losses)


def _softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
