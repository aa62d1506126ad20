"""CLIP score: similarity of an edited region and its exemplar to CLIP ViT-B/32 (Paint by Example, 2211.13227, 5.1).

It is `cosine_score` between the features of `RegionCrop`s of the holes' bounding boxes and of the `whole` exemplars.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.utils.clip import clip_normalise
from ldm.utils.errors import UserError
from ldm.utils.image import to_tensor
from ldm.utils.mask import Box

SIDE = 224  # of CLIP's input
Convention = Literal["original", "exact"]


class Whole:
    """A whole picture stretched to a square by Pillow's bicubic kernel, as exemplars are in both conventions."""

    name = "squashed to 224 x 224 by Pillow's bicubic"

    def __call__(self, picture: Image.Image) -> Tensor:
        """Convert an RGB picture to (3, 224, 224), normalised for CLIP."""
        return _normalised(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[0]


whole = Whole()


@dataclass(frozen=True)
class RegionCrop:
    """A box of a picture, stretched to a square for CLIP.

    Attributes:
        box: in pixels of the picture, x1 and y1 exclusive.
        convention: `original` as in the published script: the box without its last row and column, cropped from the
            normalised picture and scaled bilinearly without antialiasing; `exact`: the whole box, scaled by Pillow's
            antialiased bicubic kernel.
    """

    box: Box
    convention: Convention = "original"

    @property
    def name(self) -> str:
        """The key of the feature cache."""
        return f"box {','.join(map(str, self.box))}, {self.convention} crop"

    def __call__(self, picture: Image.Image) -> Tensor:
        """Convert an RGB picture to (3, 224, 224), normalised for CLIP.

        Raises:
            UserError: the box is empty or extends beyond the picture.
        """
        x0, y0, x1, y1 = self.box
        if self.convention == "original":
            x1, y1 = x1 - 1, y1 - 1
        width, height = picture.size
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UserError(f"{self.name}: empty, or extends beyond the picture of {width}x{height}")
        if self.convention == "exact":
            return whole(picture.crop(self.box))
        pixels = _normalised(picture)[:, :, y0:y1, x0:x1]
        return F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)[0]


def cosine_score(a: Tensor, b: Tensor) -> Tensor:
    """Return 100 times the cosine between the rows of features (N, d) and (N, d): (N,) float64 on the CPU."""
    return 100 * F.cosine_similarity(a.double(), b.double(), dim=1).cpu()


def _normalised(picture: Image.Image) -> Tensor:
    return clip_normalise((to_tensor(picture) + 1) / 2)
