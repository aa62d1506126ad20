"""How well an edit keeps what is around its hole, as the bcmi leaderboard of COCOEE measures it, and better."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.metrics import psnr, ssim


def without_hole(images: Tensor, holes: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1], black where holes (B, 1, H, W) are not 0."""
    return torch.where(holes > 0, -1.0, images)


def background_scores(
    edited: Tensor, scenes: Tensor, holes: Tensor, lpips: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Each (B,) on the CPU, between edited pictures and their scenes, (B, 3, H, W) in [-1, 1].

    `lpips`, `ssim` and `psnr` are of whole pictures whose hole has been made black in both, as in the leaderboard:
    the hole counts as kept, so a larger one looks better. `ssim outside` and `psnr outside` are over the pixels outside
    alone, NaN where there are none. PSNR is infinite where nothing has changed.

    Args:
        holes: (B, 1, H, W), not 0 where the scene was to change.
        lpips: distance of pictures (B, 3, H, W) in [-1, 1], (B,); without it that score is left out.
    """
    a, b, outside = without_hole(edited, holes), without_hole(scenes, holes), (holes == 0).float()
    scores = {
        "ssim": ssim(a, b),
        "psnr": psnr(a, b),
        "ssim outside": ssim(edited, scenes, outside),
        "psnr outside": psnr(edited, scenes, outside),
    }
    scores = {name: score.cpu() for name, score in scores.items()}
    return scores | ({} if lpips is None else {"lpips": lpips(a, b).cpu()})
