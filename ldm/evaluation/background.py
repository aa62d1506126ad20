"""Metrics of how well an edit keeps the background, those of the bcmi leaderboard of COCOEE and a better one."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.metrics import psnr, ssim
from ldm.utils.errors import UserError

SMALLEST = 6  # pixels a side, for the window of `ssim`


def without_hole(images: Tensor, holes: Tensor) -> Tensor:
    """Return pictures (B, 3, H, W) in [-1, 1], black where holes (B, 1, H, W) are not 0."""
    return torch.where(holes > 0, -1.0, images)


def background_scores(
    edited: Tensor, scenes: Tensor, holes: Tensor, lpips: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Compare edited pictures with their scenes, (B, 3, H, W) in [-1, 1]; each score is (B,) on the CPU.

    `lpips` and `ssim` compare whole pictures with the hole black in both, as in the leaderboard: the hole counts as
    kept, so a larger one scores better. `psnr outside` is over the pixels outside the hole only: infinite where they
    are unchanged, NaN where there are no such pixels.

    Args:
        holes: (B, 1, H, W), not 0 where the scene was edited.
        lpips: distance of pictures (B, 3, H, W) in [-1, 1], (B,); without it that score is left out.

    Raises:
        UserError: the pictures are too small for SSIM.
    """
    if min(edited.shape[-2:]) < SMALLEST:
        size = f"{edited.shape[-1]}x{edited.shape[-2]}"
        raise UserError(f"background: pictures of {size}, expected {SMALLEST} or more pixels a side")
    a, b, outside = without_hole(edited, holes), without_hole(scenes, holes), (holes == 0).float()
    scores = {"ssim": ssim(a, b), "psnr outside": psnr(edited, scenes, outside)}
    if lpips is not None:
        scores["lpips"] = lpips(a, b)
    return {name: score.cpu() for name, score in scores.items()}
