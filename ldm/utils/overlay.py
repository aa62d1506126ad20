"""Masks and maps of numbers as pictures."""

import torch
from PIL import Image
from torch import Tensor

from ldm.utils.image import to_pil, to_tensor

RED = torch.tensor([1.0, -1.0, -1.0])[:, None, None]


def tint(image: Tensor, mask: Tensor) -> Tensor:
    """A picture (3, H, W) in [-1, 1] under a red veil where the mask (1, H, W) is 1."""
    return image + mask * 0.5 * (RED - image)


def overlay(image: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture in grey, and red where the mask (L) is white: no colour of its own can be mistaken for the mask."""
    grey = to_tensor(image.convert("L"))[0]
    return to_pil(tint(grey, (to_tensor(mask)[0, :1] > 0).float()))


def heat_map(values: Tensor) -> Image.Image:
    """(H, W) in [0, 1] -> RGB: from black over red and yellow to white."""
    steps = torch.arange(3, device=values.device)[:, None, None]
    return to_pil((3 * values - steps).clamp(0, 1) * 2 - 1)
