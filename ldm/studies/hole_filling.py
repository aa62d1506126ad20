"""Hole filling in batches of small scenes, by RePaint and by classical inpainting, and measurements on it.

A batch is made by `ldm.toyworld.scenes.collate` from items of `ldm.toyworld.scenes.HoleScenes`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.editors.repaint import RePaint
from ldm.evaluation.metrics import mean, psnr, ssim
from ldm.presets import RePaintSettings
from ldm.studies.judging import Figures, finish
from ldm.utils.extras import require
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.random import NoiseSource

CLASSICAL = {"Telea": "INPAINT_TELEA", "Navier-Stokes": "INPAINT_NS"}  # name -> OpenCV's name
RADIUS = 3 / 256  # of the neighbourhood, as a share of the picture's side; OpenCV uses at least 1 pixel
DISTANCE, PSNR, SSIM = "feature distance", "PSNR, dB", "SSIM"
HIGHER_IS_BETTER = (PSNR, SSIM)
DIGITS = {PSNR: 2, SSIM: 3}  # after the decimal point, 4 for all others

Callback = Callable[[int, int, Tensor, Tensor], None]
Distances = Mapping[str, Callable[[Tensor, Tensor], Tensor]]  # name -> (pictures, scenes) in [-1, 1] -> (B,)
Summary = dict[str, tuple[float, float]]  # name of a figure -> mean and standard error


def fill(
    editor: RePaint,
    settings: RePaintSettings,
    batch: Mapping[str, Tensor],
    seeds: Sequence[int],
    callback: Callback | None = None,
) -> tuple[list[Image.Image], Tensor]:
    """Fill the hole of every scene of a batch, each with the noise of its own seed.

    Returns:
        The finished pictures, and whether each is exact (B,): even before compositing, the known pixels of the scene
        are unchanged, byte for byte.
    """
    scenes, masks = batch["image"], batch["mask"]
    filled = editor.decode(editor.sample(scenes, masks, [editor.condition()], NoiseSource(seeds), settings, callback))
    before = torch.cat([to_tensor(to_pil(picture)) for picture in filled])
    exact = torch.where(masks > 0, scenes, before).eq(scenes).flatten(1).all(1)
    return finish(filled, scenes, masks, settings)[0], exact


def has_opencv() -> bool:
    """Return whether OpenCV is installed, which `fill_classically` needs."""
    return find_spec("cv2") is not None


def fill_classically(method: str, batch: Mapping[str, Tensor]) -> list[Image.Image]:
    """Fill the hole of every scene of a batch by a method of OpenCV, which continues colours and edges into it.

    Args:
        method: a key of `CLASSICAL`: the marching front of Telea (2004), or the fluid dynamics of Bertalmio et al.
            (2001).

    Raises:
        UserError: OpenCV is not installed.
    """
    require("cv2")
    import cv2

    pictures = []
    for scene, mask in zip(batch["image"], batch["mask"], strict=True):
        hole = (mask[0] > 0).numpy().astype(np.uint8)
        pixels = cv2.inpaint(np.asarray(to_pil(scene)), hole, RADIUS * max(hole.shape), getattr(cv2, CLASSICAL[method]))
        pictures.append(Image.fromarray(pixels))
    return pictures


def measure(pictures: Sequence[Image.Image], batch: Mapping[str, Tensor], distances: Distances) -> Figures:
    """Compare filled scenes with the scenes: `distances` between whole pictures, PSNR and SSIM of the hole only."""
    scenes, masks = batch["image"], batch["mask"]
    filled = torch.cat([to_tensor(picture) for picture in pictures])
    return {
        **{name: distance(filled, scenes).double().cpu() for name, distance in distances.items()},
        PSNR: psnr(filled, scenes, where=masks),
        SSIM: ssim(filled, scenes, where=masks),
    }


def summary(figures: Figures) -> Summary:
    """Return the mean and standard error of every figure."""
    return {name: mean(values) for name, values in figures.items()}


def difference(one: Figures, other: Figures) -> Summary:
    """Return mean and standard error of the differences `one - other` over their common, first scenes."""
    common = min(len(next(iter(figures.values()))) for figures in (one, other))
    return {name: mean(values[:common] - other[name][:common]) for name, values in one.items()}


def advantage(name: str, values: tuple[float, float]) -> float:
    """Return a difference in standard errors, positive where the first method is better."""
    value, error = values if name in HIGHER_IS_BETTER else (-values[0], values[1])
    return value / error if error else float("inf") * value if value else 0.0


def won(differences: Mapping[str, Summary]) -> dict[str, dict[str, int]]:
    """Count for each figure the masks on which the first method is better, and better by two standard errors or more.

    Args:
        differences: by mask.
    """
    names = dict.fromkeys(name for found in differences.values() for name in found)
    ahead = {name: [advantage(name, found[name]) for found in differences.values()] for name in names}
    return {
        name: {"better": sum(a > 0 for a in all), "by two standard errors": sum(a >= 2 for a in all), "of": len(all)}
        for name, all in ahead.items()
    }


def cells(found: Summary, signed: bool = False) -> list[str]:
    """Format figures with their standard errors for a table."""
    sign = "+" if signed else ""
    return [f"{v:{sign}.{DIGITS.get(name, 4)}f} ± {e:.{DIGITS.get(name, 4)}f}" for name, (v, e) in found.items()]


def row(*columns: object) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(map(str, columns))} |"


def hole_table(masks: Mapping[str, Mapping[str, Any]], pair: str) -> str:
    """Format the figures of every mask and method, and the difference of two methods, as Markdown tables.

    Args:
        masks: mask -> "calls" (method -> network calls, if any), "figures" (method -> summary), "difference" (summary),
            "exact" (text).
        pair: label of the difference.
    """
    names = list(next(iter(masks.values()))["difference"])
    lines = [row("mask", "method", "network calls", *names), row(*["---"] * (3 + len(names)))]
    for kind, found in masks.items():
        for method, figures in found["figures"].items():
            lines.append(row(kind, method, found["calls"].get(method, "-"), *cells(figures)))
    lines += ["", row(f"mask: {pair}", *names, "known pixels exact"), row(*["---"] * (2 + len(names)))]
    for kind, found in masks.items():
        lines.append(row(kind, *cells(found["difference"], signed=True), found["exact"]))
    return "\n".join(lines)
