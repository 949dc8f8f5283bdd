"""The update rule of AdamW."""

import numpy as np


def adamw(weight, gradient, mean, square, step, rate, betas, eps, decay, scale):
    """One step of Adam with decoupled weight decay, in place on weight, mean and square

    g = scale * gradient,   m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    w <- w - rate * (decay * w + (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps))

    All arrays are flat and of one length; step t counts from 1; scale is the factor of gradient clipping.
    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2; decay is multiplied by the learning rate, as
    PyTorch does and LLaMA was trained.
    """
    beta1, beta2 = betas
    g = gradient * scale
    mean += (1 - beta1) * (g - mean)
    square += (1 - beta2) * (g * g - square)
    update = (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + eps)
    weight -= rate * (decay * weight + update)
