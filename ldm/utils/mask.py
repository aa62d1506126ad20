"""Masks: white = repaint, 1 = repaint, threshold 128."""

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm.utils.errors import UserError
from ldm.utils.image import Picture, as_image, decode

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 exclusive."""

THRESHOLD = 128

log = logging.getLogger(__name__)


def open_mask(
    path: str | Path, size: tuple[int, int], invert: bool = False, rule: str = "any", resize: bool = True
) -> Tensor:
    """Open the mask file of an image of `size` (width, height); see `parse_mask`."""
    return parse_mask(decode(path), size, invert, rule, resize, name=f"mask {path}")


def parse_mask(
    image: Image.Image,
    size: tuple[int, int],
    invert: bool = False,
    rule: str = "any",
    resize: bool = True,
    name: str = "mask",
) -> Tensor:
    """Convert a picture of a mask to (1, 1, H, W) float32 of zeros and ones, 1 = repaint.

    Pixels with a value of 128 or more are repainted. Under the rule `any` the value is the brightest channel (so red on
    black works), the alpha channel if all colours are equal, and 255 for 1 in a mask of zeros and ones; under the rule
    `luma` it is the luminance, as in the original's script. A mask with the image's aspect ratio but another size is
    resized (nearest), and a warning is logged.

    Args:
        size: width and height of the image.
        invert: black = repaint.
        resize: False refuses any other size.
        name: of the mask, for messages.

    Raises:
        UserError: nothing is selected, the aspect ratio differs from the image's, or the mask may not be resized.
    """
    values = np.array(image.convert("L")) if rule == "luma" else _values(image)
    selected = _fit(Image.fromarray(values), size, name, resize) >= THRESHOLD
    if invert:
        selected = ~selected
    if not selected.any():
        convention = "inverted: black = repaint" if invert else "white = repaint"
        raise UserError(f"{name}: nothing is selected ({convention}; values range from {values.min()} to "
                        f"{values.max()}, threshold {THRESHOLD})")  # fmt: skip
    return torch.from_numpy(selected)[None, None].float()


def fit_mask(mask: Picture, size: tuple[int, int], rule: str = "any", resize: bool = True) -> Tensor:
    """Return a mask for an image of `size` (width, height) as (1, 1, H, W) float32 of zeros and ones.

    Args:
        mask: a picture or the path of one (see `parse_mask`); an array (H, W) of uint8 or bool; or a tensor ((1,) (1,)
            H, W), repainted where it is 0.5 or more.

    Raises:
        UserError: as in `parse_mask`; or a tensor has another shape or is below 0.5 everywhere; or it is another type.
    """
    if isinstance(mask, str | Path):
        return open_mask(mask, size, rule=rule, resize=resize)
    if isinstance(mask, np.ndarray):
        mask = mask.squeeze() if mask.ndim > 2 and mask.shape[-1] not in (3, 4) else mask
        mask = torch.from_numpy(mask.astype(np.float32)) if mask.dtype.kind in "bf" else mask
    if isinstance(mask, Tensor) and mask.shape[-3:-2] != (3,):
        if mask.shape != (*(1,) * (mask.ndim - 2), *size[::-1]):
            raise UserError(f"mask: shape {tuple(mask.shape)}, expected {(1, 1, *size[::-1])}")
        if not (selected := mask >= 0.5).any():
            raise UserError("mask: nothing is selected, all values are below 0.5 (1 = repaint)")
        return selected.float().reshape(1, 1, *size[::-1])
    if not isinstance(mask, Image.Image | np.ndarray | Tensor):
        raise UserError(f"mask: {type(mask).__name__}, expected a path, a picture, or an array or tensor (H, W)")
    return parse_mask(as_image(mask, "mask"), size, rule=rule, resize=resize)


def box_mask(box: Box, size: tuple[int, int]) -> Tensor:
    """Return a mask (1, 1, H, W), 1 inside a box, for an image of `size` (width, height).

    Raises:
        UserError: the box is empty or extends beyond the image.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    name = f"box {x0},{y0},{x1},{y1}"
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"{name}: empty, expected x0 < x1 and y0 < y1")
    if min(x0, y0) < 0 or x1 > width or y1 > height:
        raise UserError(f"{name}: extends beyond the image of {width}x{height}")
    mask = torch.zeros(1, 1, height, width)
    mask[..., y0:y1, x0:x1] = 1
    return mask


def mask_box(mask: Tensor) -> Box:
    """Return the bounding box of a non-empty mask (1, 1, H, W)."""
    rows, columns = (mask[0, 0].amax(dim).nonzero()[:, 0].tolist() for dim in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def mask_picture(mask: Tensor) -> Image.Image:
    """Convert (1, 1, H, W) of zeros and ones to a picture of mode L, 255 = repaint."""
    return Image.fromarray((mask[0, 0] * 255).byte().numpy())


def _values(image: Image.Image) -> np.ndarray:
    """Return how much each pixel is selected, (H, W) uint8, from colours or alpha."""
    pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    values = pixels[..., :3].max(axis=-1)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3]
        painted_in_alpha = (pixels[..., :3] == pixels[0, 0, :3]).all() and alpha.min() < alpha.max()
        values = alpha if painted_in_alpha else np.minimum(values, alpha)
    return values * 255 if values.max() == 1 else values


def _fit(mask: Image.Image, size: tuple[int, int], name: str, resize: bool) -> np.ndarray:
    (w, h), (width, height) = mask.size, size
    if (w, h) != (width, height):
        if (h, w) == (width, height):
            raise UserError(f"{name}: transposed, the mask is {w}x{h} and the image {width}x{height}")
        if abs(w * height - h * width) > max(w + h, width + height) / 2:  # more than rounding to whole pixels explains
            raise UserError(f"{name}: {w}x{h}, expected the image's {width}x{height}, or its aspect ratio")
        if not resize:
            raise UserError(f"{name}: the mask is {w}x{h} and the image {width}x{height}, expected the same size")
        log.warning("%s: resized from %dx%d to the image's %dx%d", name, w, h, width, height)
        mask = mask.resize(size, Image.Resampling.NEAREST)
    return np.array(mask)
