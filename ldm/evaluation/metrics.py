"""Metrics of pictures and masks, and means with standard errors."""

import math

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """Compute the PSNR of each picture in dB, (B,): 10 log10(2^2 / mean squared difference), inf where equal.

    Args:
        a, b: (B, C, H, W) in [-1, 1].
        where: (B, 1, H, W), 1 in the pixels that count, 0 elsewhere; all by default. NaN for a picture without any.
    """
    error = (a.double() - b.double()).square()
    where = torch.ones_like(error) if where is None else where.double().expand_as(error)
    mse = (error * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
    return 10 * torch.log10(4 / mse)


def pooled_psnr(psnrs: Tensor) -> float:
    """Pool PSNRs (N,) in dB: the PSNR of the mean of the mean squared differences.

    It is at most the mean PSNR, which a few nearly perfect pictures can raise.
    """
    return -10 * torch.log10((10 ** (-psnrs.double() / 10)).mean()).item()


def ssim(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """Compute the structural similarity of each picture (Wang et al. 2004), (B,): 1 if equal, about 0 if unrelated.

    The similarity map is computed on the whole pictures (a Gaussian window of sigma 1.5, each channel separately), so
    that it takes surroundings into account, and then averaged over the pixels that count.

    Args:
        a, b: (B, C, H, W) in [-1, 1], at least 6 pixels a side.
        where: (B, 1, H, W), 1 in the pixels that count, 0 elsewhere; all by default. NaN for a picture without any.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    _, similarity = structural_similarity_index_measure(
        a.double(), b.double(), reduction="none", data_range=2.0, return_full_image=True
    )
    where = torch.ones_like(similarity) if where is None else where.double().expand_as(similarity)
    return (similarity * where).sum((1, 2, 3)) / where.sum((1, 2, 3))


def mean(values: Tensor) -> tuple[float, float]:
    """Return the mean of values (N,) and its standard error; for answers the share of True and sqrt(p (1 - p) / N)."""
    correction = 0 if values.dtype == torch.bool else 1  # the variance of numbers is estimated with N - 1
    values = values.double()
    return values.mean().item(), values.std(correction=correction).item() / math.sqrt(len(values))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the intersection over union of masks (B, 1, H, W), where not 0: (B,) float64, 1 if both are empty."""
    a, b = a.flatten(1) > 0, b.flatten(1) > 0
    union = (a | b).sum(1).double()
    return torch.where(union > 0, (a & b).sum(1) / union.clamp(min=1), 1.0)
