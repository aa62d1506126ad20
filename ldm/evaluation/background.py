"""How well an edit keeps what is around its hole, as the bcmi leaderboard of COCOEE measures it, and better."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.metrics import psnr, ssim
from ldm.utils.errors import UserError

SMALLEST = 6  # pixels a side, for the window of `ssim`


def without_hole(images: Tensor, holes: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1], black where holes (B, 1, H, W) are not 0."""
    return torch.where(holes > 0, -1.0, images)


def background_scores(
    edited: Tensor, scenes: Tensor, holes: Tensor, lpips: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Each (B,) on the CPU, between edited pictures and their scenes, (B, 3, H, W) in [-1, 1].

    `lpips` and `ssim` are of whole pictures whose hole has been made black in both, as in the leaderboard: the hole
    counts as kept, so a larger one looks better. `psnr outside` is over the pixels outside alone: infinite where
    nothing has changed, NaN where there are none.

    Args:
        holes: (B, 1, H, W), not 0 where the scene was to change.
        lpips: distance of pictures (B, 3, H, W) in [-1, 1], (B,); without it that score is left out.

    Raises:
        UserError: the pictures are too small for SSIM.
    """
    if min(edited.shape[-2:]) < SMALLEST:
        size = f"{edited.shape[-1]}x{edited.shape[-2]}"
        raise UserError(f"background: pictures of {size}, expected {SMALLEST} or more each way")
    a, b, outside = without_hole(edited, holes), without_hole(scenes, holes), (holes == 0).float()
    scores = {"ssim": ssim(a, b), "psnr outside": psnr(edited, scenes, outside)}
    if lpips is not None:
        scores["lpips"] = lpips(a, b)
    return {name: score.cpu() for name, score in scores.items()}
