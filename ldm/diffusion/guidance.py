"""Guidance: the predictions of the noise that a sampler follows, steered by a condition or a classifier."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule, levels_at


def classifier_free_guidance(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], cond: Tensor, uncond: Tensor | None, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a denoiser with classifier-free guidance, `eps = u + scale (c - u)`.

    Ho and Salimans, 2207.12598, equation 6, with scale = 1 + w.

    Args:
        denoise: `(x, t, context) -> eps`.
        cond: (B, L, C) context.
        uncond: like `cond`; may be None for scale 1, which runs the conditional pass alone.
        scale: 1 follows the condition as trained, more exaggerates it, 0 ignores it.

    Returns:
        `(x (B, ...), t (B,)) -> eps (B, ...)`, which makes one call on the batch [uncond, cond].
    """
    if scale == 1:
        return lambda x, t: denoise(x, t, cond)
    if uncond is None:
        raise ValueError(f"guidance scale {scale}: expected an unconditional context, uncond is None")
    context = torch.cat([uncond, cond])

    def guided(x: Tensor, t: Tensor) -> Tensor:
        eps_uncond, eps_cond = denoise(torch.cat([x, x]), torch.cat([t, t]), context).chunk(2)
        return eps_uncond + scale * (eps_cond - eps_uncond)

    return guided


def classifier_gradient(
    classifier: Callable[[Tensor, Tensor], Tensor], y: Tensor, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function `(x (B, ...), t (B,)) -> (B, ...)` for classifier guidance (2105.05233, section 4).

    It returns scale times the gradient of log p(y | x, t) in x.

    Args:
        classifier: `(x, t) -> (B, classes)` logits, trained on noisy pictures.
        y: (B,) int64, the class to guide each row to.
    """

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_probability = classifier(x, t).log_softmax(-1).gather(1, y[:, None])
            return scale * torch.autograd.grad(log_probability.sum(), x)[0]

    return gradient


def classifier_guidance(
    denoise: Callable[[Tensor, Tensor], Tensor], gradient: Callable[[Tensor, Tensor], Tensor], schedule: Schedule
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a denoiser with classifier guidance, for any sampler (2105.05233, algorithm 2).

    It returns `eps - sqrt(1 - alphas_cumprod[t]) gradient(x, t)`.

    Args:
        denoise: `(x, t) -> eps`, without a variance behind it.
        gradient: see `classifier_gradient`.
    """
    tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # moved once, not at every step

    def guided(x: Tensor, t: Tensor) -> Tensor:
        if (key := (x.device, torch.promote_types(x.dtype, torch.float32))) not in tables:
            tables[key] = (1 - schedule.alphas_cumprod).sqrt().to(*key)
        table = tables[key]
        sigma = levels_at(table.square(), t).sqrt() if t.is_floating_point() else table[t]
        return denoise(x, t) - sigma.to(x.dtype).view(-1, *[1] * (x.ndim - 1)) * gradient(x, t)

    return guided
