"""The optimizer: AdamW on the flat buffers, the learning-rate schedule, clipping by the global norm."""

from math import cos, pi, sqrt

import numpy as np

from .. import backend


def learning_rate(step, steps, peak, warmup, floor):
    """Linear warm-up to the peak, then a half cosine down to floor * peak

    step t counts from 1:   peak t / warmup   for t <= warmup,   and then, with s = (t - warmup) / (steps - warmup),
    peak (floor + (1 - floor) (1 + cos(pi s)) / 2),   and floor * peak   after the last step.
    Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.3, with floor 0.1; Loshchilov and Hutter 2017
    (arXiv 1608.03983), equation 5.
    """
    if step <= warmup:
        return peak * step / warmup if warmup else peak
    if step >= steps:
        return peak * floor
    progress = (step - warmup) / (steps - warmup)
    return peak * (floor + (1 - floor) * (1 + cos(pi * progress)) / 2)


def clip_scale(norm, limit):
    """min(1, limit / norm): the factor that shortens a gradient to at most `limit`; 1 where that is 0, clipping off

    Source: Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1.
    """
    return min(1.0, limit / norm) if norm > 0 and limit > 0 else 1.0


class AdamW:
    """The two moments of every parameter, and the step that uses them. Weight decay applies to matrices only."""

    def __init__(self, parameters, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, clip=1.0):
        self.parameters = parameters
        self.mean, self.square = np.zeros_like(parameters.flat), np.zeros_like(parameters.flat)
        self.betas, self.eps, self.weight_decay, self.clip = betas, eps, weight_decay, clip
        self.steps = 0

    def gradient_norm(self, gradients, workers):
        """The Euclidean norm of all gradients as one vector."""
        flat = gradients.flat
        return sqrt(sum(workers.run(lambda _, s: float(np.dot(flat[s], flat[s])), workers.split(len(flat)))))

    def step(self, gradients, norm, rate, workers):
        """One update with learning rate `rate`; the gradient, of length norm, is clipped to self.clip."""
        self.steps += 1
        op, scale, matrices = backend.active(), clip_scale(norm, self.clip), len(self.parameters.matrices)
        arrays = (self.parameters.flat, gradients.flat, self.mean, self.square)

        def update(_, part):
            for start, stop, decay in (
                (part.start, min(part.stop, matrices), self.weight_decay),
                (max(part.start, matrices), part.stop, 0.0),
            ):
                if start < stop:
                    w, g, m, v = (array[start:stop] for array in arrays)
                    op.adamw(w, g, m, v, self.steps, rate, self.betas, self.eps, decay, scale)

        workers.run(update, workers.split(len(self.parameters.flat)))
