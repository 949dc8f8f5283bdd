"""The update rule of gradient descent with momentum."""


def sgd(weight, gradient, velocity, rate, momentum, decay, scale):
    """One step, in place on weight and velocity

    u <- momentum u + scale * gradient + decay * w,   w <- w - rate * u

    All arrays are flat and of one length; scale is the factor of gradient clipping. The form is that of PyTorch's SGD;
    Sutskever et al. 2013 (ICML), equations 1 and 2, have the rate inside of u.
    """
    velocity *= momentum
    velocity += gradient * scale + decay * weight
    weight -= rate * velocity
