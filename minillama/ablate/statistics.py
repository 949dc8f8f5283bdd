"""How sure a difference is: Student's interval of the mean of differences that are paired by seed."""

from math import atan, cos, isnan, nan, pi, sin, sqrt
from statistics import mean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean and the interval around it; the interval of a single value is not a number."""

    mean: float
    low: float
    high: float
    count: int


def t_probability(t, freedom):
    """P(|T| <= t) for Student's distribution with a whole number of degrees of freedom n. With x = atan(t / sqrt(n)):

    odd n:    2/pi (x + sin x cos x (1 + 2/3 cos^2 x + (2 4)/(3 5) cos^4 x + ... up to cos^(n-3) x))
    even n:   sin x (1 + 1/2 cos^2 x + (1 3)/(2 4) cos^4 x + ... up to cos^(n-2) x)

    Source: Abramowitz and Stegun 1964, Handbook of Mathematical Functions, equations 26.7.3 and 26.7.4.
    """
    x, odd = atan(t / sqrt(freedom)), freedom % 2
    term, terms = 1.0, []
    for k in range(freedom // 2):
        terms.append(term)
        term *= cos(x) ** 2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    return 2 / pi * (x + sin(x) * cos(x) * sum(terms)) if odd else sin(x) * sum(terms)


def t_quantile(freedom, confidence=CONFIDENCE):
    """The t with P(|T| <= t) = confidence, by bisection: 2.776 for 4 degrees of freedom and 95 %."""
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < confidence:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_probability(middle, freedom) < confidence else (low, middle)
    return high


def estimate(values, confidence=CONFIDENCE):
    """The mean m and its interval m -+ t s / sqrt(n), with t for n - 1 degrees of freedom

    Source: Student 1908, The probable error of a mean, Biometrika 6.
    """
    count, centre = len(values), mean(values)
    if count < 2:
        return Estimate(centre, nan, nan, count)
    half = t_quantile(count - 1, confidence) * stdev(values) / sqrt(count)
    return Estimate(centre, centre - half, centre + half, count)


def paired(values, others):
    """values[seed] - others[seed] for the seeds that both have: what a seed does to both falls out."""
    return [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]


def verdict(difference):
    """What an Estimate of a difference of losses says, in words."""
    if isnan(difference.low):
        return "one seed shows no interval"
    if difference.high < 0:
        return "better"
    if difference.low > 0:
        return "worse"
    return "no difference shown at this size"
