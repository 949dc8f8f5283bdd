"""How sure a difference is: Student's interval of the mean of differences that are paired by seed."""

from math import atan, cos, inf, isnan, nan, pi, sin, sqrt
from statistics import mean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean and the interval around it; the interval of a single value is not a number."""

    mean: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # every tuple has a method of this name


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


def p_value(found, confidence=CONFIDENCE):
    """How probable a mean at least as far from 0 as that of an Estimate is, if the true mean is 0

    2 P(T >= |m| / (s / sqrt(n))) for Student's T with n - 1 degrees of freedom; confidence is that of its interval.
    """
    if isnan(found.low):
        return nan
    error = (found.high - found.mean) / t_quantile(found.count - 1, confidence)
    t = abs(found.mean) / error if error > 0 else inf if found.mean else 0.0
    return 0.0 if t == inf else 1 - t_probability(t, found.count - 1)


def holm(p_values):
    """The p values of m comparisons, adjusted for there being m: in the same order

    Sorted upwards, p_(1) <= ... <= p_(m), the i-th becomes the largest of (m - j + 1) p_(j) over j <= i, 1 at most. If
    what stays below 0.05 is called a difference, then the probability that any of these is false is 0.05 at most,
    however the comparisons depend on each other. Source: Holm 1979, A simple sequentially rejective multiple test
    procedure, Scandinavian Journal of Statistics 6.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


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
