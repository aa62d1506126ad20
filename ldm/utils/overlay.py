"""Masks and maps of numbers as pictures, and as text."""

import torch
import torch.nn.functional as F
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


def text_map(values: Tensor, columns: int = 64) -> str:
    """(H, W) in [0, 1] as lines of tenths, each digit a cell of the map, which is made smaller to fit: 5 is [0.5, 0.6).

    Nought is a dot. A character is about twice as high as it is wide.
    """
    height, width = values.shape
    columns = min(columns, width)
    rows = max(round(height * columns / width / 2), 1)
    cells = F.adaptive_avg_pool2d(values[None].float(), (rows, columns))[0]
    tenths = (10 * cells).int().clamp(0, 9)
    return "\n".join("".join(str(digit) if digit else "." for digit in line) for line in tenths.tolist())
