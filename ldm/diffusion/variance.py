"""The variance of reverse steps: fixed at one of its bounds, or learned between them (2102.09672, section 3.1)."""

from torch import Tensor

from ldm.diffusion.schedule import Schedule
from ldm.utils.errors import UserError

VARIANCES = {"fixed_small": 0.0, "fixed_large": 1.0, "learned_range": None, "learned_clipped": None}
"""The place of the variance between its bounds, in the logarithm; None: the network predicts it.

A predicted variance may lie beyond the bounds: `learned_range` follows it, as guided-diffusion does, `learned_clipped`
stops at them. On a grid of few steps the bounds are far apart, and one pixel of a briefly trained network is enough for
a sample to run away.
"""


def check_variance(variance: str) -> str:
    """Return the name of a variance.

    Raises:
        UserError: there is no such variance.
    """
    if variance not in VARIANCES:
        raise UserError(f"variance {variance!r}: expected one of {', '.join(VARIANCES)}")
    return variance


def variance_bounds(schedule: Schedule, variance: str) -> tuple[Tensor, Tensor]:
    """Return the bounds of the reverse step's variance at each t, (T,) float64: the posterior's variance, and beta.

    At t = 0 the posterior's is 0; that of t = 1 replaces it, so that logarithms exist (beta, if there is no t = 1).
    It is the variance of `fixed_large` there too, as in Ho et al.'s code and guided-diffusion's.
    """
    small, large = schedule.posterior_variance.clone(), schedule.betas.clone()
    small[0] = small[1] if len(small) > 1 else large[0]
    if check_variance(variance) == "fixed_large":
        large[0] = small[0]
    return small, large


def split(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Split a network's output (B, c or 2c, ...) into prediction and predicted variance, (B, c, ...) or None."""
    return output[:, :channels], output[:, channels:] if output.shape[1] == 2 * channels else None


def variance_fraction(variance: str, predicted_variance: Tensor | None) -> float | Tensor:
    """Return the variance's place between its bounds, in the logarithm: 0 is the lower, 1 the upper (equation 15).

    Args:
        predicted_variance: the network's channels behind its prediction, about [-1, 1].

    Raises:
        ValueError: the variance is learned, and there is no prediction.
    """
    fixed = VARIANCES[check_variance(variance)]
    if fixed is not None:
        return fixed
    if predicted_variance is None:
        raise ValueError(f"variance {variance}: expected a network that predicts its variance")
    fraction = (predicted_variance + 1) / 2
    return fraction.clamp(0, 1) if variance == "learned_clipped" else fraction


def reverse_sigma(fraction: float | Tensor, small: float, large: float) -> float | Tensor:
    """Return the standard deviation of a reverse step between the bounds `small` and `large` of its variance."""
    return small ** ((1 - fraction) / 2) * large ** (fraction / 2)
