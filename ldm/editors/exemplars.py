"""Exemplar pictures as a network sees them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ldm.models.clip_image import ExemplarConditioner
from ldm.utils.clip import CLIP_MEAN, clip_normalise
from ldm.utils.errors import UserError
from ldm.utils.image import Picture, as_image, as_list


def mix_exemplars(
    conditioner: ExemplarConditioner, exemplar: Picture | Sequence[Picture], weights: Sequence[float] | None, fit: str
) -> tuple[list[Image.Image], Tensor]:
    """Return exemplars as the image encoder sees them, and the mean of the contexts that it makes of them, (1, L, C).

    Args:
        weights: of the exemplars in the mean, by default the same for all.
        fit: see `EditSettings.exemplar_fit`.

    Raises:
        UserError: the list is empty, or the weights are of another number or not all above 0.
    """
    several = as_list(exemplar)
    exemplars = [as_image(picture, "exemplar") for picture in ([exemplar] if several is None else several)]
    weights = [1.0] * len(exemplars) if weights is None else list(weights)
    numbers = all(isinstance(weight, int | float) for weight in weights)
    if not exemplars:
        raise UserError("exemplar: the list is empty, expected one or more")
    if len(weights) != len(exemplars) or not (numbers and all(0 < weight < math.inf for weight in weights)):
        raise UserError(f"weights {weights}: expected a number above 0 for each exemplar, {len(exemplars)} in all")
    squares, contexts = encode_exemplars(conditioner, exemplars, fit)
    shares = torch.tensor(weights, dtype=torch.float64) / max(weights)  # of huge ones the sum is infinite
    shares = (shares / shares.sum()).to(contexts)
    return squares, (shares[:, None, None] * contexts).sum(0, keepdim=True)


@torch.no_grad()
def encode_exemplars(
    conditioner: ExemplarConditioner, exemplars: Sequence[Image.Image], fit: str
) -> tuple[list[Image.Image], Tensor]:
    """Return exemplars as the image encoder sees them, and the context that it makes of each, (B, L, C)."""
    squares = [fit_exemplar(picture, conditioner.image_size, fit) for picture in exemplars]
    pixels = torch.cat([exemplar_pixels(square, fit == "original") for square in squares])
    return squares, conditioner(pixels.to(next(conditioner.parameters())))


def fit_exemplar(exemplar: Image.Image, size: int, fit: str) -> Image.Image:
    """Return an exemplar as an RGB square of the encoder's `size`, bicubic; `fit` as in `EditSettings.exemplar_fit`."""
    if exemplar.has_transparency_data and fit != "original":
        rgba = exemplar.convert("RGBA")
        exemplar = Image.new("RGBA", rgba.size, tuple(round(255 * c) for c in CLIP_MEAN))
        exemplar.alpha_composite(rgba)
    exemplar = exemplar.convert("RGB")
    if fit == "crop":
        return ImageOps.fit(exemplar, (size, size), Image.Resampling.BICUBIC)
    return exemplar.resize((size, size), Image.Resampling.BICUBIC)


def exemplar_pixels(square: Image.Image, float16: bool = False) -> Tensor:
    """Return the encoder's input (1, 3, S, S), normalised for CLIP.

    Args:
        float16: round it, as the original's script does.
    """
    pixels = clip_normalise(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255)
    return pixels.half().float() if float16 else pixels
