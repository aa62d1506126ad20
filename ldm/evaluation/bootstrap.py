"""Bootstrap confidence intervals (Efron 1979), from statistics of samples drawn with replacement."""

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
    """An estimate from `n` samples and its confidence interval."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Format value and interval, each by `spec`: `f"{estimate:.2f}"` is "3.18 [3.02, 3.35]"."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def bootstrap(
    statistic: Callable[[Tensor], float], n: int, *, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """Estimate a statistic of n samples and its interval.

    The interval is the value plus the deviations of the resampled quantiles from the resampled mean. For a mean this is
    the percentile interval; for a Fréchet distance it also removes the bias of resampling: a resample contains fewer
    distinct samples, and is farther from everything.

    To compare two methods on the same samples, use the statistic of their difference, `f(a[i]) - f(b[i])`.

    Args:
        statistic: indices (n,) int64 of samples, 0 to n - 1 with repetitions -> value.
        resamples: number of resamples; a seed always draws the same ones.
        level: of the interval, in (0, 1).

    Raises:
        UserError: there are no samples.
    """
    if n < 1:
        raise UserError("bootstrap: found no samples, expected one or more")
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
    """Estimate the mean of values (N,), or the share of True among answers; for paired differences pass `a - b`.

    NaN are left out, and `n` of the result counts the others.
    """
    values = values.double().cpu()
    values = values[~values.isnan()]
    return bootstrap(lambda i: values[i].mean().item(), len(values), seed=seed, resamples=resamples, level=level)
