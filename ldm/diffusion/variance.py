"""The variance of reverse steps: fixed at one of its bounds, or learned between them (2102.09672, section 3.1)."""

from torch import Tensor

from ldm.diffusion.schedule import Schedule
from ldm.utils.errors import UserError

VARIANCES = {"fixed_small": 0.0, "fixed_large": 1.0, "learned_range": None, "learned_clipped": None}
"""Where between its bounds, in the logarithm, the variance lies; None: the network says it.

What it says may lie beyond the bounds: `learned_range` follows it, as guided-diffusion does, `learned_clipped` stops at
them. On a grid of few steps the bounds are far apart, and one pixel of a briefly trained network is enough for a sample
to run away.
"""


def check_variance(variance: str) -> str:
    if variance not in VARIANCES:
        raise UserError(f"variance {variance!r}: expected one of {', '.join(VARIANCES)}")
    return variance


def variance_bounds(schedule: Schedule, variance: str) -> tuple[Tensor, Tensor]:
    """The least and the largest variance of the reverse step at each t, (T,) float64 each: the posterior's, and beta.

    At t = 0 the posterior's is 0; that of t = 1 stands there, so that logarithms exist (beta, if there is no t = 1).
    It is the variance of `fixed_large` there too, as in Ho et al.'s code and guided-diffusion's.
    """
    small, large = schedule.posterior_variance.clone(), schedule.betas.clone()
    small[0] = small[1] if len(small) > 1 else large[0]
    if check_variance(variance) == "fixed_large":
        large[0] = small[0]
    return small, large


def split(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """A network's output (B, c or 2c, ...): its prediction (B, c, ...), and what it says of its variance, if any."""
    return output[:, :channels], output[:, channels:] if output.shape[1] == 2 * channels else None


def variance_fraction(variance: str, said: Tensor | None) -> float | Tensor:
    """How far, in the logarithm, the variance is on the way from its lower to its upper bound (equation 15).

    Args:
        said: the network's channels behind its prediction, about [-1, 1].
    """
    fixed = VARIANCES[check_variance(variance)]
    if fixed is not None:
        return fixed
    if said is None:
        raise ValueError(f"the variance {variance} needs a network that predicts it")
    fraction = (said + 1) / 2
    return fraction.clamp(0, 1) if variance == "learned_clipped" else fraction


def reverse_sigma(fraction: float | Tensor, small: float, large: float) -> float | Tensor:
    """The standard deviation of a reverse step between the bounds `small` and `large` of its variance."""
    return small ** ((1 - fraction) / 2) * large ** (fraction / 2)
