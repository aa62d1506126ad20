"""Pictures of masks and maps."""

import torch
from PIL import Image
from torch import Tensor

from ldm.utils.image import to_pil, to_tensor

RED = torch.tensor([1.0, -1.0, -1.0])[:, None, None]


def tint(image: Tensor, mask: Tensor) -> Tensor:
    """Tint a picture (3, H, W) in [-1, 1] red where the mask (1, H, W) is 1."""
    return image + mask * 0.5 * (RED - image)


def overlay(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Draw a picture in grey, so that its colours cannot be mistaken for the mask, and red where the mask is white."""
    grey = to_tensor(image.convert("L"))[0]
    return to_pil(tint(grey, (to_tensor(mask)[0, :1] > 0).float()))


def heat_map(values: Tensor) -> Image.Image:
    """Draw values (H, W) in [0, 1] as RGB, from black over red and yellow to white."""
    steps = torch.arange(3, device=values.device)[:, None, None]
    return to_pil((3 * values - steps).clamp(0, 1) * 2 - 1)
