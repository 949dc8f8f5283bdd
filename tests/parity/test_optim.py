"""Optimizers, schedules and clipping against torch.optim, and a schedule that only transformers has."""

import numpy as np
import pytest

from minillama.gradcheck import relative_error
from minillama.runtime.memory import Store
from minillama.runtime.workers import Workers
from minillama.training.clipping import clip_gradients, clip_scale, gradient_norm
from minillama.training.optimizers import SGD, Adam, AdamW
from minillama.training.schedules import learning_rate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPES = {"matrix": (5, 4), "vector": (6,), "cube": (2, 3, 2)}
PAIRS = {  # name -> ours, theirs
    "adamw": (
        lambda p: AdamW(p, (0.9, 0.95), 1e-8, 0.1),
        lambda g: torch.optim.AdamW(g, lr=1.0, betas=(0.9, 0.95), eps=1e-8),
    ),
    "adam": (
        lambda p: Adam(p, (0.8, 0.99), 1e-6, 0.1),
        lambda g: torch.optim.Adam(g, lr=1.0, betas=(0.8, 0.99), eps=1e-6),
    ),
    "sgd": (lambda p: SGD(p, 0.9, 0.1), lambda g: torch.optim.SGD(g, lr=1.0, momentum=0.9)),
    "sgd without momentum": (lambda p: SGD(p, 0.0, 0.1), lambda g: torch.optim.SGD(g, lr=1.0)),
}
SCHEDULES = {  # name -> its numbers, theirs from (optimizer, steps after the warm-up)
    "cosine": ((0.1,), lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n, eta_min=0.1 * 3.0)),
    "linear": ((0.1,), lambda o, n: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, n)),
    "constant": ((), lambda o, n: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
}


def theirs(ours):
    parameters = {name: torch.nn.Parameter(torch.tensor(array.copy())) for name, array in ours.items()}
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim == 1]
    return parameters, [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]


@pytest.mark.parametrize("kind", ["store", "mapping"])
@pytest.mark.parametrize("name", PAIRS)
def test_an_optimizer_follows_pytorchs(name, kind, each_backend, rng):
    ours, gradients, workers = Store(SHAPES, np.float64), Store(SHAPES, np.float64), Workers(2)
    ours.flat[:] = rng.standard_normal(38)
    if kind == "mapping":
        ours = {name: array.copy() for name, array in ours.items()}
    parameters, groups = theirs(ours)
    make, make_theirs = PAIRS[name]
    optimizer, reference = make(ours), make_theirs(groups)
    for step in range(1, 8):
        gradients.flat[:] = rng.standard_normal(38) * 3
        rate = learning_rate(step, 7, 0.01, 2, 0.1)
        for parameter, gradient in zip(parameters.values(), gradients.values(), strict=True):
            parameter.grad = torch.tensor(gradient.copy())
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
        if kind == "mapping":
            optimizer.step({name: array.copy() for name, array in gradients.items()}, rate)
        else:
            optimizer.step(gradients, rate, workers=workers)
        for name, parameter in parameters.items():
            assert relative_error(ours[name], parameter.detach().numpy()) < 1e-12, (name, step)


@pytest.mark.parametrize("limit", [0.5, 1.0, 1e6])
def test_clipping_follows_pytorchs(limit, rng):
    arrays = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    parameters, _ = theirs(arrays)
    for name, parameter in parameters.items():
        parameter.grad = torch.tensor(arrays[name].copy())
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit).item()
    assert clip_gradients(arrays, limit) == pytest.approx(norm, rel=1e-14)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(arrays[name], parameter.grad.numpy(), rtol=1e-14)


def test_adamw_with_a_scale_follows_pytorch_with_clipping(rng):
    ours, gradients, workers = Store(SHAPES, np.float64), Store(SHAPES, np.float64), Workers(2)
    ours.flat[:] = rng.standard_normal(38)
    parameters, groups = theirs(ours)
    make, make_theirs = PAIRS["adamw"]
    optimizer, reference = make(ours), make_theirs(groups)
    for step in range(1, 8):
        gradients.flat[:] = rng.standard_normal(38) * 3
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name].copy())
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0).item()
        for group in reference.param_groups:
            group["lr"] = 0.01
        reference.step()
        ours_norm = gradient_norm(gradients, workers)
        assert ours_norm == pytest.approx(norm, rel=1e-12)
        optimizer.step(gradients, 0.01, clip_scale(ours_norm, 1.0), workers)
        for name, parameter in parameters.items():
            assert relative_error(ours[name], parameter.detach().numpy()) < 1e-7, step  # clip adds 1e-6 to the norm


def rates(scheduler, optimizer, count):
    found = []
    for _ in range(count):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_follows_pytorchs(name, warmup):
    numbers, make = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    ours = [learning_rate(t, warmup + 20, 3.0, warmup, *numbers, schedule=name) for t in range(1, warmup + 21)]
    np.testing.assert_allclose(ours[:warmup], 3.0 * np.arange(1, warmup + 1) / max(1, warmup), rtol=1e-12)
    np.testing.assert_allclose(ours[warmup:], rates(make(optimizer, 20), optimizer, 20), rtol=1e-9)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_wsd_follows_transformers(floor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    scheduler = transformers.get_wsd_schedule(
        optimizer, 8, num_decay_steps=20, num_training_steps=108, decay_type="linear", min_lr_ratio=floor
    )
    ours = [learning_rate(t, 108, 3.0, 8, floor, 0.2, schedule="wsd") for t in range(1, 109)]
    theirs = rates(scheduler, optimizer, 108)  # whose warm-up begins at the floor, and not at 0
    np.testing.assert_allclose(ours[7:], theirs[7:], rtol=1e-9, atol=1e-12)
    assert ours[7:88] == [3.0] * 81 and ours[88] < 3.0 and ours[-1] == pytest.approx(3.0 * floor)
