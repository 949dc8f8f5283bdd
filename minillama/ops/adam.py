"""The update rule of Adam with L2 regularisation."""

import numpy as np


def adam(weight, gradient, mean, square, step, rate, betas, eps, decay, scale):
    """One step of Adam, in place on weight, mean and square; the decay is a part of the gradient

    g = scale * gradient + decay * w,   m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    w <- w - rate * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    All arrays are flat and of one length; step t counts from 1; scale is the factor of gradient clipping.
    Source: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; the decay as in Loshchilov and Hutter 2019 (arXiv
    1711.05101), algorithm 2, the line for L2.
    """
    beta1, beta2 = betas
    g = gradient * scale + decay * weight
    mean += (1 - beta1) * (g - mean)
    square += (1 - beta2) * (g * g - square)
    weight -= rate * (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + eps)
