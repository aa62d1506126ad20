"""Paint by Example's recipe: a picture, one of its boxes as the hole, the same box as the exemplar.

arXiv 2211.13227, section 3. Random numbers are drawn in the order of the original code (`ldm.data.crops`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.augmentation import augment
from ldm.data.crops import cut, extended_box, padded_box, square_window
from ldm.data.images import array_to_tensor
from ldm.data.masks import bezier_mask, bounds, filled_box
from ldm.utils.clip import clip_normalise
from ldm.utils.errors import UserError
from ldm.utils.mask import Box


@dataclass(frozen=True)
class Recipe:
    """The recipe of a training item; plain values, so that a config states them once for all its data sets.

    Args:
        size: S, side of the item's image and mask in pixels.
        exemplar_size: E, side of the exemplar in pixels; its content is squashed into this square.
        arbitrary_mask_percent: share of Bezier-shaped masks, 0..1; the others are filled boxes.
        pad: how far the exemplar extends beyond the box, in pixels of the file.
        jitter: how far the points of a Bezier-shaped mask stray, in pixels of the file.
        augment: augment the exemplar; turn off to look at the plain crops.
        squash: as in the original, squash a picture if no square window in it holds the box; otherwise pad it.
        antialias: resize the picture with antialiasing, for sizes far below the files'; the original does not, and the
            official weights do not expect it. The mask is never antialiased.
    """

    size: int = 512
    exemplar_size: int = 224
    arbitrary_mask_percent: float = 0.5
    pad: int = 10
    jitter: int = 5
    augment: bool = True
    squash: bool = False
    antialias: bool = False

    def __post_init__(self):
        if not 0 <= self.arbitrary_mask_percent <= 1:
            raise UserError(f"arbitrary_mask_percent {self.arbitrary_mask_percent}: expected a share from 0 to 1")

    def __call__(
        self,
        picture: np.ndarray,
        boxes: Sequence[Box],
        rng: Random,
        mask: np.ndarray | None = None,
        exemplar: np.ndarray | None = None,
    ) -> dict[str, Tensor]:
        """Make one item: "image", "mask", "exemplar" and "box".

        image: (3, S, S) float32 in [-1, 1]. mask: (1, S, S) float32, 1 = repaint, soft at the edge where the window
        was resized (bilinear). exemplar: (3, E, E) float32, normalised for CLIP. box: (x0, y0, x1, y1) in pixels of
        the item's image, float32.

        Args:
            picture: (H, W, 3) uint8 RGB.
            boxes: in pixels of the picture; one is drawn uniformly.
            mask: (H, W) uint8, 255 = repaint: used as it is, with its bounding box as the box.
            exemplar: (h, w, 3) uint8, shown whole instead of the box.

        Raises:
            UserError: the box is empty or extends beyond the picture.
        """
        height, width = picture.shape[:2]
        box = tuple(rng.choice(boxes)) if mask is None else bounds(mask)
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UserError(
                f"box {list(box)}: empty or outside the picture, expected a box within {width}x{height} pixels"
            )
        if mask is not None:
            extended = box
        else:
            extended = extended_box(box, width, height, rng)
            if rng.uniform(0, 1) < self.arbitrary_mask_percent:
                mask = bezier_mask(box, extended, width, height, rng, self.jitter)
            else:
                mask = filled_box(extended, width, height)
        window = square_window(extended, width, height, rng, self.squash)
        item = {
            "image": resize(array_to_tensor(cut(picture, window, fill=128)), self.size, self.antialias),
            "mask": resize(torch.from_numpy(np.array(cut(mask, window)))[None].float().div_(255), self.size),
        }
        shown = cut(picture, padded_box(box, self.pad, width, height)) if exemplar is None else exemplar
        shown = exemplar_tensor(shown, self.exemplar_size)
        item["exemplar"] = clip_normalise(augment(shown, rng) if self.augment else shown)
        left, top, right, bottom = window
        corners = torch.tensor([x0 - left, y0 - top, x1 - left, y1 - top], dtype=torch.float32)
        item["box"] = corners * (self.size / torch.tensor([right - left, bottom - top] * 2))
        return item


def exemplar_tensor(picture: np.ndarray, size: int) -> Tensor:
    """Squash a picture (H, W, 3) uint8 to (3, size, size) float32 in [0, 1], bicubic."""
    squashed = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(squashed)).permute(2, 0, 1).contiguous().float().div_(255)


def resize(image: Tensor, size: int, antialias: bool = False) -> Tensor:
    """Resize (C, H, W) to (C, size, size), bilinear."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image[None], size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)[0]
