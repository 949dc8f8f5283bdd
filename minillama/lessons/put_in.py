"""Put a reader's function into the model: a small LLaMA trains with it, and tells a story.

The functions of some exercises are what an operation of the library computes, in a form that is easier to write. PLACES
says for each of them which operation it takes the place of, how it is called there, and a mistake that training shows.
"""

import textwrap
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import log
from typing import NamedTuple

import numpy as np

from .. import backend
from ..config import Config
from ..data.corpora import encode_corpus
from ..generation.generate import generate
from ..messages import unknown
from ..model import Model
from ..ops import attention
from ..runtime.memory import Store
from ..training.objectives import OBJECTIVES
from ..training.trainer import NotFinite, Settings, Trainer, evaluate
from . import reference_llama
from .checks import check

VOCABULARY, THETA = 512, 10000.0  # theta: Config's
SHAPE = {"dim": 64, "layers": 2, "heads": 4, "context": 64}
TRAINING = {"batch_size": 8, "lr": 0.01}
STEPS, WARMUP = 100, 10
WHOLE = "loss_and_gradients"  # the operation of a function that is put in the place of the model's whole backward
_VALIDATION_TOKENS = 8192
_STORY_TOKENS = 60
_objective = OBJECTIVES["next_token"]  # what `train` trains for; inside of put_in it can have a reader's backward


class Place(NamedTuple):
    """Where the function of an exercise goes."""

    operation: str  # of the backend, or WHOLE
    adapted: Callable  # adapted(function) -> the same function with the operation's arguments and results
    mistake: str  # what a wrong one does, in words
    mistaken: Callable  # mistaken(function) -> a wrong one, in the form of the exercise
    kv_heads: int | None = None  # of the model that trains with it; None: as many as query heads


def _linear_backward(function):
    """Of `x weight + bias` with x (B, T, C) and weight (C, F); the library's weight is (F, C)."""

    def linear_backward(dy, x, weight, dweight, dbias=None):
        dx, dw, db = function(dy[None], x[None], weight.T)
        dweight += dw.T
        if dbias is not None:
            dbias += db
        return dx[0]

    return linear_backward


def _rmsnorm(function):
    """The library's keeps 1 / rms for its backward."""

    def rmsnorm(x, weight, eps):
        rows = x.reshape(-1, len(weight))
        return function(rows, weight, eps).reshape(x.shape), 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)

    return rmsnorm


def _rope(function):
    """From positions and theta; the library's has cos and sin, and works in place. Of models with the usual theta."""

    def rope(x, cos, sin, layout, heads=None):
        turned, positions = x[:, :, :heads], np.arange(x.shape[1])
        turned[...] = np.stack([function(sequence, positions, THETA, layout) for sequence in turned])
        return x

    return rope


def _attention_backward(function):
    """Of one head of one sequence; the library's has all, and as many key/value heads as query heads here."""

    def attention_backward(do, q, k, v, *saved):
        heads = [[a[b, :, h] for a in (do, q, k, v)] for b, h in np.ndindex(q.shape[0], q.shape[2])]
        grads = [np.stack(grad) for grad in zip(*(function(*head) for head in heads), strict=True)]
        by_head = (grad.reshape(*q.shape[:3:2], *grad.shape[1:]) for grad in grads)
        return np.concatenate(list(by_head), axis=1).swapaxes(1, 2)  # (B, T, 3 H, D)

    return attention_backward


def _attention_backward_of_groups(function):
    """The function adds up the gradients of a group's copies; what it gets are those of multi-head attention."""

    def attention_backward(do, q, k, v, *saved):
        H, K = q.shape[2], k.shape[2]
        copies = (np.repeat(a, H // K, axis=2) for a in (k, v))
        dq, dk, dv = np.split(attention.attention_backward(do, q, *copies, *saved), 3, axis=2)  # (B, T, H, D) each
        return np.concatenate([dq, function(dk, K), function(dv, K)], axis=2)

    return attention_backward


def _swiglu_backward(function):
    def swiglu_backward(dh, gate_up):
        gate, up = np.split(gate_up, 2, axis=-1)
        return np.concatenate(function(dh, gate, up), axis=-1)

    return swiglu_backward


def _whole(function):
    """Of the weights as a dict; the optimizer wants the gradients in one Store. All targets count alike here."""

    def loss_and_gradients(model, ids, targets, micro_batches, noise_seed):
        with model.workers.blas(model.workers.threads):
            loss, gradients = function(dict(model.parameters), ids, targets, model.config)
        store = Store(model.parameters.shapes, model.dtype)
        for name, gradient in gradients.items():
            store[name][...] = gradient
        return loss, store

    return loss_and_gradients


def _first_row_only(function):
    def wrong(dy, x, weight):
        dx, _, dbias = function(dy, x, weight)
        return dx, x[0, :1].T @ dy[0, :1], dbias

    return wrong


def _across_tokens(function):
    return lambda x, weight, eps: weight * function(x.T, np.ones(len(x), x.dtype), eps).T


def _other_layout(function):
    other = {"rotate_half": "interleaved", "interleaved": "rotate_half"}
    return lambda x, positions, theta, layout: function(x, positions, theta, other[layout])


def _without_row_sum(function):
    """dS = P dP / sqrt(D), without the term that the softmax's denominator gives."""

    def wrong(do, q, k, v):
        hidden = np.arange(len(k)) > np.arange(len(k) - len(q), len(k))[:, None]
        p = np.where(hidden, 0, np.exp(q @ k.T / q.shape[1] ** 0.5))
        p /= p.sum(axis=1, keepdims=True)
        ds = p * (do @ v.T) / q.shape[1] ** 0.5
        return ds @ k, ds.T @ q, function(do, q, k, v)[2]

    return wrong


def _across_tokens_of_a_head(function):
    """The heads are brought in front and then cut as if they were not, so that tokens are added up."""
    return lambda dk, kv_heads: function(dk.swapaxes(1, 2).reshape(dk.shape), kv_heads)


def _exchanged(function):
    return lambda dh, gate, up: function(dh, gate, up)[::-1]


def _through_the_layers_alone(function):
    def wrong(p, ids, targets, config):
        return reference_llama.gradients(p, ids, targets, config, "straight path dropped")

    return wrong


PLACES = {  # exercise -> its Place; what a mistake does to the training was measured before it was chosen
    "gpt2_linear_backward": Place(
        "linear_backward", _linear_backward, "dweight of the first token alone", _first_row_only
    ),
    "rmsnorm_as_llama": Place("rmsnorm", _rmsnorm, "the mean runs over the tokens of a text", _across_tokens),
    "rope_rotate": Place("rope", _rope, "the forward pairs as the other layout does", _other_layout),
    "causal_attention_backward": Place(
        "attention_backward", _attention_backward, "dS without its row sum", _without_row_sum
    ),
    "shared_head_gradient": Place(
        "attention_backward",
        _attention_backward_of_groups,
        "a reshape mixes heads and tokens before the sum",
        _across_tokens_of_a_head,
        kv_heads=2,
    ),
    "swiglu_backward": Place("swiglu_backward", _swiglu_backward, "dgate and dup exchanged", _exchanged),
    "llama_gradients": Place(
        WHOLE, _whole, "a residual's gradient comes through its layer alone", _through_the_layers_alone
    ),
}


@contextmanager
def put_in(name, function):
    """Inside this block models compute with NumPy, and with this function, the answer to the exercise called name

    ValueError for an exercise that has no place in the model.
    """
    place = _place(name)
    adapted = place.adapted(function)
    if place.operation == WHOLE:
        with backend.use("numpy"), _trained_by(adapted):
            yield
    else:
        with backend.replaced(**{place.operation: adapted}):
            yield


@contextmanager
def _trained_by(loss_and_gradients):
    global _objective
    before, _objective = _objective, _objective._replace(loss_and_gradients=loss_and_gradients)
    try:
        yield
    finally:
        _objective = before


@dataclass(frozen=True)
class Trained:
    """What came of a training: its losses, the validation loss, and the beginning of a story by the model."""

    losses: list  # of each step's batch
    validation: float  # nan where the training ran into infinity
    story: str


def train(steps=STEPS, seed=0, kv_heads=None):
    """A small LLaMA, trained on the stories in float64 and on one thread, so that every machine gets the same numbers

    Backend and backward are those in use: inside of `put_in` with the reader's function. kv_heads: as many as query
    heads by default; an exercise on shared heads has a model with fewer (`kv_heads` of its Place).
    """
    corpus = _stories()
    config = Config(corpus.tokenizer.vocab_size, kv_heads=kv_heads, **SHAPE)
    settings = Settings(steps=steps, warmup=min(WARMUP, steps - 1), seed=seed, **TRAINING)
    model = Model(config, seed, np.float64, threads=1, init_std=settings.init_std)
    trainer, losses = Trainer(model, corpus, settings, _objective), []
    try:
        with np.errstate(all="ignore"):  # what overflows ends the training
            for _ in range(steps):
                losses.append(trainer.step()[0])
    except NotFinite:
        return Trained(losses, float("nan"), "")
    validation = evaluate(model, corpus.validation[:_VALIDATION_TOKENS], corpus.tokenizer)
    return Trained(losses, validation, _story(model, corpus.tokenizer))


@cache
def library(steps=STEPS, kv_heads=None):
    """What the library's own operations train, to compare with."""
    with backend.use("numpy"), _trained_by(Model.loss_and_gradients):
        return train(steps, kv_heads=kv_heads)


def train_with(answer, steps=STEPS):
    """Put the answer to an exercise into the model, if it passes: train with it, with the library's, and with a mistake

    Prints what the checker says where the answer does not pass yet, and otherwise the three losses and a story.
    """
    name = getattr(answer, "__name__", None)
    place, report = _place(name), check(answer)
    if not report.passed:
        print(f"{report}\nWhen it passes, it comes into the model here.")
        return
    with put_in(name, answer):
        yours = train(steps, kv_heads=place.kv_heads)
    with put_in(name, place.mistaken(answer)):
        wrong = train(steps, kv_heads=place.kv_heads)
    own = library(steps, place.kv_heads)
    apart = max((abs(a - b) for a, b in zip(yours.losses, own.losses, strict=False)), default=0.0)
    same = "the same" if apart < 1e-6 else f"ANOTHER ONE: up to {apart:.2g} apart in a step"
    if len(yours.losses) < len(own.losses):
        same = f"ANOTHER ONE: it ran into infinity after {len(yours.losses)} steps"
    print(f"{name} is in the model: {steps} steps on the stories, loss on others in nats per token")
    print(f"  knowing nothing, log {VOCABULARY}    {log(VOCABULARY):.3f}")
    print(f"  with your function         {yours.validation:.3f}")
    print(f"  with the library's         {own.validation:.3f}   ({same})")
    print(f"  with a wrong one           {wrong.validation:.3f}   ({place.mistake})")
    print(f"  the true entropy           {_stories().floor:.3f}")
    print(textwrap.fill(f"Yours tells: {yours.story}", 100))
    print(textwrap.fill(f"The wrong one tells: {wrong.story}", 100))


def _place(name):
    if name not in PLACES:
        raise ValueError(unknown("exercise with a place in the model", str(name), PLACES))
    return PLACES[name]


@cache
def _stories():
    return encode_corpus("stories", vocab_size=VOCABULARY)


def _story(model, tokenizer):
    """The likeliest words, one after the other, from the beginning of a story."""
    start = [tokenizer.end_of_text]
    ids = generate(model, start, min(_STORY_TOKENS, model.config.context - 1), top_k=1, stop=(tokenizer.end_of_text,))
    return tokenizer.decode([i for i in ids if i != tokenizer.end_of_text])
