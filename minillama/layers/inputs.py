"""What a model is given, checked before anything is computed: ids, targets, token types, lengths, weights of targets.

Each function returns arrays, or raises ValueError with what was received, what was expected and what to do.
"""

import numpy as np

from ..ops.loss import IGNORED


def require_causal(config):
    """ValueError for a model that reads what comes after a position, where text is to be written token by token."""
    if not config.causal:
        raise ValueError(
            f"a model with the mask {config.mask!r} reads what comes after a position too, so nothing of it "
            f"can be kept while a text grows, and it writes none. It fills gaps: minillama.generation.generate.fill"
        )


def check_inputs(config, ids, types, lengths, cache=None) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """ids, types and lengths as arrays, or ValueError."""
    if cache is not None and lengths is not None:
        raise ValueError("lengths count tokens from the beginning, of which a cache holds some; leave lengths out")
    ids = _check_ids(config, ids, cache)
    return ids, _check_types(config, ids, types), _check_lengths(ids, lengths)


def _check_ids(config, ids, cache):
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be whole numbers of shape (B, T); received {ids.dtype} {ids.shape}")
    if cache is not None:
        _check_cache(config, ids, cache)
    past = 0 if cache is None else cache.length
    if past + ids.shape[1] > config.context:
        raise ValueError(
            f"{past + ids.shape[1]} positions do not fit the context of {config.context} that this model was "
            f"made for; shorten the sequence, or make the model with a larger context"
        )
    if cache is not None and past + ids.shape[1] > cache.room:
        raise ValueError(
            f"{past + ids.shape[1]} positions do not fit the cache, which has room for {cache.room}; ask new_cache "
            f"for more"
        )
    if cache is not None and past + ids.shape[1] > config.cached_context:
        raise ValueError(
            f"with rope_scaling {config.rope_scaling!r} every further token beyond "
            f"{config.cached_context} turns all earlier keys anew, so a cache of keys cannot be used there; "
            f"read the text without a cache, or choose 'ntk', which has fixed angles"
        )
    # Two reductions take as long as a tenth of a small model's token.
    lowest, highest = (ids.item(), ids.item()) if ids.size == 1 else (ids.min(), ids.max())
    if lowest < 0 or highest >= config.vocab_size:
        raise ValueError(
            f"token ids must lie in [0, {config.vocab_size}); received {lowest} to {highest}. Was the "
            f"text encoded with another tokenizer?"
        )
    return ids


def _check_cache(config, ids, cache):
    layers, sequences, kv_heads, _, width, _ = cache.keys.shape
    if (layers, kv_heads, width) != (config.layers, config.kv_heads, config.head_dim):  # a kernel would read beyond it
        raise ValueError(
            f"the cache is for {layers} layers of {kv_heads} key/value heads of width {width}, and the model has "
            f"{config.layers} of {config.kv_heads} of {config.head_dim}; ask the new_cache of this model for one"
        )
    if sequences != len(ids):
        raise ValueError(f"the cache is for {sequences} sequences; received ids for {len(ids)}")
    if cache.length < 0:
        raise ValueError(f"a cache holds 0 tokens and more; its length was set to {cache.length}")


def check_targets(config, ids, targets, lengths=None):
    """targets as an array, and how many are not IGNORED."""
    targets = np.asarray(targets)
    if targets.shape != np.shape(ids) or targets.dtype.kind not in "iu":
        raise ValueError(
            f"targets must be whole numbers of the shape of ids, {np.shape(ids)}; received {targets.dtype} "
            f"{targets.shape}"
        )
    predicted = np.count_nonzero(targets != IGNORED)
    if lengths is not None and (targets != IGNORED)[np.arange(targets.shape[1]) >= lengths[:, None]].any():
        raise ValueError(f"what stands at lengths[b] and after it is padding: its targets must be {IGNORED}")
    if predicted == 0:
        raise ValueError(f"every target is {IGNORED}, which means ignored: there is nothing to predict")
    if np.count_nonzero(targets >= 0) < predicted or targets.max() >= config.vocab_size:
        raise ValueError(
            f"targets must lie in [0, {config.vocab_size}) or be {IGNORED}; received {targets.min()} to {targets.max()}"
        )
    return targets, predicted


def check_target_weights(weights, targets, predicted):
    """weights as an array of float64; what it has where a target is IGNORED does not count."""
    if weights is None:
        return np.broadcast_to(1 / predicted, targets.shape)  # a view of one number
    weights = np.asarray(weights)
    if weights.shape != targets.shape or weights.dtype.kind not in "fiu":
        raise ValueError(
            f"weights must be numbers of the shape of targets, {targets.shape}; received {weights.dtype} "
            f"{weights.shape}"
        )
    weights = np.where(targets != IGNORED, weights, 0).astype(np.float64)
    if not np.isfinite(weights).all():
        raise ValueError("weights must be finite where a target is not ignored; received infinity or NaN")
    return weights


def _check_types(config, ids, types):
    """types as an array; zeros where none are given to a model that has them; None for one that has none."""
    if not config.token_types:
        if types is not None:
            raise ValueError("this model has no token types; leave types out")
        return None
    types = np.zeros(ids.shape, np.intp) if types is None else np.asarray(types)
    if types.shape != ids.shape or types.dtype.kind not in "iu":
        raise ValueError(
            f"types must be whole numbers of the shape of ids, {ids.shape}; received {types.dtype} {types.shape}"
        )
    if types.min() < 0 or types.max() >= config.token_types:
        raise ValueError(f"types must lie in [0, {config.token_types}); received {types.min()} to {types.max()}")
    return types


def _check_lengths(ids, lengths):
    if lengths is None:
        return None
    lengths, (B, T) = np.asarray(lengths), ids.shape
    if lengths.shape != (B,) or lengths.dtype.kind not in "iu":
        raise ValueError(
            f"lengths must be a whole number for each of the {B} sequences; received {lengths.dtype} {lengths.shape}"
        )
    if lengths.min() < 1 or lengths.max() > T:
        raise ValueError(f"lengths must lie in [1, {T}], the tokens given; received {lengths.min()} to {lengths.max()}")
    return lengths
