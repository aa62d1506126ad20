"""Figures with intervals, by the bootstrap (Efron 1979): the same statistic of samples drawn again with replacement."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.utils.errors import UserError
from ldm.utils.random import generator


@dataclass(frozen=True)
class Estimate:
    """A figure of `n` samples and the interval that holds the true one at the level it was made for."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """The figure and its interval, each as `spec` says: `f"{estimate:.2f}"` is "3.18 [3.02, 3.35]"."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    statistic: Callable[[Tensor], float], n: int, *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """The statistic of all n samples and its interval.

    The interval is the figure plus what the quantiles of the resampled figures differ from their mean. For a mean that
    is the percentile interval; for a Fréchet distance it also takes away what repeated samples add to it: resamples
    show fewer different samples than there are, and lie farther from everything.

    Two methods are compared on the same samples by the statistic of their difference, `f(a[i]) - f(b[i])`.

    Args:
        statistic: takes indices (n,) int64 of samples, 0 .. n - 1, with repetitions; returns the figure of those.
        resamples: how many are drawn; the same seed draws the same.
        level: of the interval, in (0, 1).

    Raises:
        UserError: there are no samples.
    """
    if n < 1:
        raise UserError("bootstrap: no samples, expected one or more")
    value = float(statistic(torch.arange(n)))
    draw = generator(seed, "bootstrap", n)
    rounds = tqdm(range(resamples), "bootstrap", leave=False, delay=2, disable=None)
    figures = [float(statistic(torch.randint(n, (n,), generator=draw))) for _ in rounds]
    drawn = torch.tensor(figures, dtype=torch.float64)
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    if math.isinf(value):
        return Estimate(value, value, value, n)
    drawn = drawn[drawn.isfinite()]
    low, high = (value + drawn.quantile(tail) - drawn.mean()).tolist()
    return Estimate(value, low, high, n)


def mean_estimate(values: Tensor, *, seed: int = 0, resamples: int = 1000, level: float = 0.95) -> Estimate:
    """The mean of figures (N,), or the share of True among answers; of paired differences, give `a - b`.

    NaN is no figure: `n` of the result counts the others.
    """
    values = values.double().cpu()
    values = values[~values.isnan()]
    return bootstrap(lambda i: values[i].mean().item(), len(values), seed=seed, resamples=resamples, level=level)
