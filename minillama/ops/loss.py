"""The loss: softmax with cross-entropy over the vocabulary."""

import numpy as np

IGNORED = -100  # a target with this value has no loss and no gradient (the value that PyTorch uses)


def cross_entropy(logits, targets):
    """loss_n = log(sum over v of exp(z_nv)) - z_n,target;   0 where the target is IGNORED

    logits z (N, V), targets (N,) -> losses (N,) in nats, and the log of the softmax's denominator (N,).
    """
    largest = logits.max(axis=-1)
    log_denominator = largest + np.log(np.exp(logits - largest[..., None]).sum(axis=-1))
    kept = np.not_equal(targets, IGNORED)
    wanted = np.take_along_axis(logits, np.where(kept, targets, 0)[..., None], axis=-1)[..., 0]
    losses = np.where(kept, log_denominator - wanted, 0)
    return losses.astype(logits.dtype), log_denominator


def cross_entropy_backward(weights, logits, targets, log_denominator):
    """dz_nv = weight_n * (softmax(z_n)_v - [v = target_n]);   0 where the target is IGNORED

    Each row adds up to 0. The gradient takes the place of the logits, in place: they are the largest array of a model
    with a large vocabulary, and nothing needs them again.
    weights (N,), dL/dloss_n, of the logits' dtype; logits (N, V), targets (N,) -> logits, now dlogits (N, V).
    """
    kept = np.not_equal(targets, IGNORED)
    wanted = np.where(kept, targets, 0)[..., None]
    np.exp(logits - log_denominator[..., None], out=logits)
    np.put_along_axis(logits, wanted, np.take_along_axis(logits, wanted, axis=-1) - kept[..., None], axis=-1)
    logits *= np.where(kept, weights, 0).astype(logits.dtype)[..., None]
    return logits
