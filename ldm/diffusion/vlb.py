"""The variational bound on the negative log-likelihood (Ho et al., 2006.11239, equation 5), in bits per dimension.

Images are in [-1, 1], with 256 levels. The bound is the sum over t of a term that needs a prediction of the mean and
the variance there, plus the prior's term.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.process import posterior, q_sample, x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.diffusion.variance import split, variance_bounds, variance_fraction

HALF_LEVEL = 1 / 255  # half the distance between neighbouring values of a picture
BITS = 1 / math.log(2)


@dataclass(frozen=True)
class Bound:
    """The bound of B pictures, in bits per dimension.

    Attributes:
        terms: (B, S), upwards from t = 0, where the term is the decoder's.
        prior: (B,)
    """

    terms: Tensor
    prior: Tensor

    @property
    def decoder(self) -> Tensor:
        """The term at t = 0, (B,)."""
        return self.terms[:, 0]

    @property
    def total(self) -> Tensor:
        """The sum of all terms, (B,)."""
        return self.terms.sum(1) + self.prior


@torch.no_grad()
def bound(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[int],
    variance: str,
    noise: Callable[..., Tensor],
    callback: Callable[[], None] | None = None,
) -> Bound:
    """Return the bound of a model that takes its steps on a grid, by one call of `denoise` per timestep.

    Args:
        denoise: `(x, t) -> eps`, as samplers call it, with a learned variance behind eps. guided-diffusion clips the
            predicted x0, which lowers the bound: `Denoiser(clip_x0=True)`.
        x0: (B, C, H, W) pictures.
        timesteps: whole timesteps of the schedule, distinct: all of them, or fewer for the bound of a shorter process.
        noise: `(*shape without the batch) -> (B, *shape)` standard normal.
        callback: called after each timestep.
    """
    steps, terms = sorted(int(t) for t in timesteps), []
    grid = schedule.respaced(steps)
    for k, (t, alpha) in enumerate(zip(steps, grid.alphas_cumprod.tolist(), strict=True)):
        x = q_sample(x0, noise(*x0.shape[1:]).to(x0), alpha)
        output = denoise(x, torch.full((len(x0),), t, device=x0.device))
        eps, predicted_variance = split(output, x0.shape[1])
        at = torch.full((len(x0),), k, device="cpu")
        terms.append(bound_term(x0, x0_from_eps(x, eps, alpha), predicted_variance, at, grid, variance))
        if callback is not None:
            callback()
    return Bound(torch.stack(terms, dim=1), prior_term(x0, grid))


def bound_term(
    x0: Tensor, x0_predicted: Tensor, predicted_variance: Tensor | None, t: Tensor, schedule: Schedule, variance: str
) -> Tensor:
    """Return the term at t of each row, (B,).

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), or at t = 0 -log p(x_0 | x_1).
    Both means have the same part of x_t, which cancels.

    Args:
        x0, x0_predicted: (B, C, H, W) clean pictures, and the network's prediction of them.
        predicted_variance: like x0; None with a fixed variance.
        t: (B,) int64 on the CPU.
        variance: see `ldm.diffusion.variance`.
    """
    small, large = (bounds[t] for bounds in variance_bounds(schedule, variance))
    share = posterior(torch.ones(()), torch.zeros(()), schedule.alphas_cumprod[t], schedule.alphas_cumprod_prev[t])[0]
    table = torch.stack([small.log(), large.log(), share, (t == 0).double()]).to(x0)  # not before: float32 would cancel
    low, high, share, first = table.view(4, -1, *[1] * (x0.ndim - 1))
    log_variance = torch.lerp(low, high, torch.as_tensor(variance_fraction(variance, predicted_variance)).to(x0))
    kl = normal_kl(share * x0, low, share * x0_predicted, log_variance)
    nll = -log_likelihood(x0, x0_predicted, log_variance / 2)
    return torch.where(first > 0, nll, kl).flatten(1).mean(1) * BITS


def prior_term(x0: Tensor, schedule: Schedule) -> Tensor:
    """Return KL(q(x_T | x_0) || N(0, 1)), (B,): next to nothing, if the schedule ends in noise."""
    alpha = schedule.alphas_cumprod[-1]
    mean, log_variance = alpha.sqrt().item() * x0, (1 - alpha).log().to(x0)
    return normal_kl(mean, log_variance, torch.zeros_like(x0), torch.zeros_like(x0)).flatten(1).mean(1) * BITS


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(other mean, other variance)) in nats, elementwise."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.expm1() - ratio + (mean - other_mean).square() * (-other_log_variance).exp())


def log_likelihood(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the log of a Gaussian's mass in the interval of each value of a picture, in nats (equation 13).

    Intervals are one level wide, those at the ends are open. Masses below 1e-12, beyond 7 standard deviations, count as
    1e-12. (guided-diffusion approximates the error function.)
    """
    exact = (v.to(torch.float32 if v.device.type == "mps" else torch.float64) for v in (x, mean, log_sigma))
    value, middle, log_sigma = exact  # MPS has no float64
    inverse, distance = (-log_sigma).exp() / math.sqrt(2), value - middle
    above = ((distance + HALF_LEVEL) * inverse).masked_fill(x > 0.999, torch.inf)
    below = ((distance - HALF_LEVEL) * inverse).masked_fill(x < -0.999, -torch.inf)
    # both tails by erfc, mirrored: the difference of two numbers near 1 would lose all digits
    near, far = (torch.where(distance > 0, *pair) for pair in ((below, -above), (above, -below)))
    return ((near.erfc() - far.erfc()) / 2).clamp(min=1e-12).log().to(x.dtype)
