"""The variational bound on the likelihood, in bits per dimension (Ho et al., 2006.11239, equation 5).

Images are in [-1, 1], with 256 levels. A term at t needs a prediction of the mean and the variance there; the sum over
all t and the prior's term bound the negative log-likelihood.
"""

import math

import torch
from torch import Tensor

from ldm.diffusion.process import posterior
from ldm.diffusion.schedule import Schedule
from ldm.diffusion.variance import reverse_log_variance, variance_bounds

LEVEL = 1 / 127.5  # between neighbouring values of a picture
BITS = 1 / math.log(2)


def bound_term(
    x0: Tensor, x: Tensor, x0_predicted: Tensor, fraction: float | Tensor, t: Tensor, schedule: Schedule
) -> Tensor:
    """(B,) bits per dimension at the timesteps t: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), or -log p(x_0 | x_1).

    Args:
        x0, x: (B, C, H, W) clean pictures, and noised to t.
        x0_predicted: the same shape, from x.
        fraction: of the reverse variance between its bounds, see `ldm.diffusion.variance`; like x, or one number.
        t: (B,) int64 on the CPU; at 0 the term is the decoder's.
    """

    def at_t(table: Tensor) -> Tensor:
        return table[t].to(x).view(-1, *[1] * (x.ndim - 1))

    small, large = map(at_t, variance_bounds(schedule))
    log_variance = reverse_log_variance(fraction, small, large)
    levels = at_t(schedule.alphas_cumprod), at_t(schedule.alphas_cumprod_prev)
    mean = posterior(x0_predicted, x, *levels)[0]
    kl = normal_kl(posterior(x0, x, *levels)[0], small.log(), mean, log_variance)
    nll = -log_likelihood(x0, mean, log_variance / 2)
    return torch.where(at_t(torch.arange(schedule.num_timesteps)) == 0, nll, kl).flatten(1).mean(1) * BITS


def prior_term(x0: Tensor, schedule: Schedule) -> Tensor:
    """(B,) bits per dimension of KL(q(x_T | x_0) || N(0, 1)): next to nothing, if the schedule ends in noise."""
    alpha = schedule.alphas_cumprod[-1].to(x0)
    zero = torch.zeros_like(x0)
    return normal_kl(alpha.sqrt() * x0, (1 - alpha).log(), zero, zero).flatten(1).mean(1) * BITS


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other mean, other variance)) in nats, elementwise."""
    ratio = log_variance - other_log_variance
    return 0.5 * (ratio.exp() - 1 - ratio + (mean - other_mean).square() * (-other_log_variance).exp())


def log_likelihood(x: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """log of a Gaussian's mass in the interval of each value of a picture, in nats (equation 13); ends are open."""
    inverse = (-log_sigma).exp()
    centred = x - mean
    above = torch.special.ndtr((centred + LEVEL) * inverse)
    below = torch.special.ndtr((centred - LEVEL) * inverse)
    above, below = torch.where(x > 0.999, 1.0, above), torch.where(x < -0.999, 0.0, below)
    return (above - below).clamp(min=1e-12).log()
