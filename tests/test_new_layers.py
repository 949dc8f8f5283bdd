"""A feed-forward is a file and a row, a block at most two files and a row each: here they are added to a copy."""

import pytest

from .package_copy import PackageCopy

REGLU = '''"""ReGLU: one half of the columns, through ReLU, is the gate of the other."""

import numpy as np


def reglu(gate_up):
    """h = max(gate, 0) * up. Source: Shazeer 2020 (arXiv 2002.05202), equation 5"""
    gate, up = np.split(gate_up, 2, axis=1)
    return np.maximum(gate, 0) * up


def reglu_backward(dh, gate_up):
    gate, up = np.split(gate_up, 2, axis=1)
    return np.concatenate([dh * up * np.heaviside(gate, 0), dh * np.maximum(gate, 0)], axis=1)
'''
SQUARED = '''"""Squared ReLU."""

import numpy as np


def squared(z):
    """h = max(z, 0)^2. Source: So et al. 2021 (arXiv 2109.08668), section 3.1"""
    return np.maximum(z, 0) ** 2


def squared_backward(dh, z):
    return dh * 2 * np.maximum(z, 0)
'''

# Two feed-forward layers, of which a router chooses one for each row. The router's auxiliary loss keeps its logits
# small. Twelve rows of three workers leave some worker without a row for an expert, which must add zeros then.
EXPERTS = '''"""A mixture of feed-forward layers: a router chooses one for each row."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from . import declare
from .declare import Affine, filled
from .feedforward import FeedForwardWeights, feed_forward_layer, feed_forward_layer_backward, feed_forward_parameters

EXPERTS, COEFFICIENT = 2, 0.3


class ExpertsWeights(NamedTuple):
    router: Affine  # weight (E, C)
    experts: tuple[FeedForwardWeights, ...]


class ExpertsSaved(NamedTuple):
    x: np.ndarray
    shares: np.ndarray  # (N, E), of the softmax
    log_denominator: np.ndarray  # (N,)
    rows: list  # of each expert
    outputs: list
    saved: list
    auxiliary: np.ndarray  # (N,)


def experts_parameters(config):
    def expert(e):
        def named(one):
            shapes = {f"experts.{e}.{name}": shape for name, shape in one.shapes.items()}
            return replace(one, shapes=shapes, active=one.multiplications // EXPERTS)

        return filled(feed_forward_parameters(config), named)

    router = declare.linear({"router": (EXPERTS, config.dim)}, "feed-forward")
    return ExpertsWeights(router, tuple(map(expert, range(EXPERTS))))


def experts_layer(op, p, x):
    """y_n = s_ne expert_e(x_n),   s_n = softmax(w_router x_n),   e where s_n is largest

    auxiliary_n = coefficient (log of the softmax's denominator)^2
    Source: Fedus et al. 2021 (arXiv 2101.03961), equation 2; Zoph et al. 2022 (arXiv 2202.08906), equation 5.
    """
    logits = op.linear(x, *p.router)
    log_denominator = np.log(np.exp(logits).sum(axis=1))
    shares = np.exp(logits - log_denominator[:, None])
    chosen, y = shares.argmax(axis=1), np.zeros_like(x)
    rows, outputs, saved = [], [], []
    for e in range(EXPERTS):
        rows.append(np.flatnonzero(chosen == e))
        output, saved_expert = feed_forward_layer(op, p.experts[e], x[rows[e]])
        y[rows[e]] = shares[rows[e], e, None] * output
        outputs.append(output)
        saved.append(saved_expert)
    auxiliary = x.dtype.type(COEFFICIENT) * log_denominator**2
    return y, ExpertsSaved(x, shares, log_denominator, rows, outputs, saved, auxiliary)


def experts_layer_backward(op, p, grad, dy, saved, dauxiliary):
    x, shares, log_denominator, rows, outputs, saved_experts, _ = saved
    dx, dshares = np.zeros_like(x), np.zeros_like(shares)
    for e in range(EXPERTS):  # each one, with rows or without
        of = rows[e]
        dshares[of, e] = np.sum(dy[of] * outputs[e], axis=1)
        through = feed_forward_layer_backward(
            op, p.experts[e], grad.experts[e], dy[of] * shares[of, e, None], saved_experts[e]
        )
        dx[of] += through
    dlogits = shares * (dshares - np.sum(dshares * shares, axis=1, keepdims=True))
    dlogits += (dauxiliary * x.dtype.type(2 * COEFFICIENT) * log_denominator)[:, None] * shares
    dx += op.linear_backward(dlogits, x, p.router.weight, *grad.router)
    return dx
'''
BLOCK = '''"""A pre-normalised block whose feed-forward is a mixture of experts."""

from typing import Any, NamedTuple

import numpy as np

from .. import declare
from ..attention import (
    AttentionSaved, AttentionWeights, attention_layer, attention_layer_backward, attention_parameters,
)
from ..declare import Affine
from ..experts import ExpertsSaved, ExpertsWeights, experts_layer, experts_layer_backward, experts_parameters


class MixedWeights(NamedTuple):
    attention_norm: Affine
    attention: AttentionWeights
    ffn_norm: Affine
    mixture: ExpertsWeights


class MixedSaved(NamedTuple):
    x: np.ndarray
    norm_1: Any
    attention: AttentionSaved
    between: np.ndarray
    norm_2: Any
    mixture: ExpertsSaved

    @property
    def auxiliary(self):
        return self.mixture.auxiliary


def mixed_parameters(config):
    return MixedWeights(
        declare.norm(config, "attention_norm", config.dim), attention_parameters(config),
        declare.norm(config, "ffn_norm", config.dim), experts_parameters(config),
    )


def mixed_block(op, config, p, x, shard, noise, site, cache=None):
    h, saved_norm_1 = op.norm(x, *p.attention_norm, config.norm_eps)
    y, saved_attention = attention_layer(op, config, p.attention, h, shard, cache)
    y = x + noise.drop(op, y, site)
    h, saved_norm_2 = op.norm(y, *p.ffn_norm, config.norm_eps)
    z, saved_mixture = experts_layer(op, p.mixture, h)
    z = y + noise.drop(op, z, site + 1)
    return z, MixedSaved(x, saved_norm_1, saved_attention, y, saved_norm_2, saved_mixture)


def mixed_block_backward(op, config, p, grad, dx, shard, noise, site, saved, dauxiliary):
    dz = noise.drop(op, dx, site + 1)
    dh = experts_layer_backward(op, p.mixture, grad.mixture, dz, saved.mixture, dauxiliary)
    dx += op.norm_backward(dh, saved.between, p.ffn_norm.weight, saved.norm_2, *grad.ffn_norm)
    dy = noise.drop(op, dx, site)
    dh = attention_layer_backward(op, config, p.attention, grad.attention, dy, shard, saved.attention)
    dx += op.norm_backward(dh, saved.x, p.attention_norm.weight, saved.norm_1, *grad.attention_norm)
    return dx
'''
FINITE_DIFFERENCES = """
import numpy as np
from minillama import IGNORED, Config, Model, backend
from minillama.gradcheck import numerical_gradient, relative_error
from minillama.runtime import shards

shards.ROWS_WORTH_CUTTING, shards.WORK_WORTH_SHARING = 4, 0
rng = np.random.default_rng(0)
config = Config(7, dim=6, layers=2, heads=3, kv_heads=1, ffn=4, context=12, placement="mixed", position="none")
ids, targets = rng.integers(0, 7, (2, 1, 12))
weights = rng.standard_normal((1, 12))  # of both signs
with backend.use("numpy"):
    for threads in (1, 2, 3):
        model = Model(config, dtype=np.float64, threads=threads)
        model.parameters.flat[:] = np.random.default_rng(1).standard_normal(model.parameters.flat.size) * 0.5
        loss = lambda: model.loss_and_gradients(ids, targets, weights)[0]
        for name, parameter in model.parameters.items():
            expected = numerical_gradient(loss, parameter)
            assert relative_error(model.loss_and_gradients(ids, targets, weights)[1][name], expected) < 1e-7, name
        gaps = np.where(np.arange(12) % 4 == 1, IGNORED, targets)  # nine targets are left
        usual = model.loss_and_gradients(ids, gaps)[0]
        assert abs(usual - model.loss_and_gradients(ids, gaps, np.full((1, 12), 1 / 9))[0]) < 1e-13
        assert usual > model.loss(ids, gaps) + 0.1
        for each in (weights, -weights, np.abs(weights)):
            of_targets = float(np.sum(each * model.losses(ids, targets)))
            print(model.loss_and_gradients(ids, targets, each)[0] - of_targets)
"""


@pytest.mark.parametrize(
    "name, text, gated", [("reglu", REGLU, True), ("squared", SQUARED, False)], ids=["gated", "without a gate"]
)
def test_a_feed_forward_is_one_file_and_one_row(name, text, gated, tmp_path):
    copy = PackageCopy(tmp_path)
    copy.add(f"ops/feedforward/{name}.py", text)
    row = f'"{name}": FeedForward({name}, {name}_backward, gated={gated})'
    copy.add_row("ops/feedforward/__init__.py", "FEED_FORWARDS", row, f"from .{name} import {name}, {name}_backward")
    copy.passes(name, 10, "test_switches.py", "test_ops.py", "test_parameters.py")
    copy.train("--feed-forward", name)
    assert ("w_gate" in copy.command("info", "run")) == gated
    assert copy.touched == {f"ops/feedforward/{name}.py", "ops/feedforward/__init__.py"}


def test_a_block_with_an_auxiliary_loss_is_two_files_and_a_row(tmp_path):
    copy = PackageCopy(tmp_path)
    copy.add("layers/experts.py", EXPERTS)
    copy.add("layers/blocks/mixed.py", BLOCK)
    row = '"mixed": Placement(mixed_parameters, mixed_block, mixed_block_backward, True, has_auxiliary=True)'
    imports = "from .mixed import mixed_block, mixed_block_backward, mixed_parameters"
    copy.add_row("layers/blocks/__init__.py", "PLACEMENTS", row, imports)
    # Gradient, shards, causality, cached decoding; attention maps; views, counts and multiplications.
    copy.passes("mixed", 12, "test_switches.py", "test_inspect.py", "test_parameters.py")
    # The same for any number of workers and any sign.
    auxiliary = [float(line) for line in copy.python("-c", FINITE_DIFFERENCES).stdout.split()]
    assert len(auxiliary) == 9 and auxiliary[0] > 0.1 and max(auxiliary) - min(auxiliary) < 1e-12
    copy.train("--placement", "mixed")
    assert "experts.1.w_gate" in copy.command("info", "run")
    assert copy.touched == {"layers/experts.py", "layers/blocks/mixed.py", "layers/blocks/__init__.py"}
