"""CLIP score: how alike an edited region and its exemplar look to CLIP ViT-B/32 (Paint by Example, 2211.13227, 5.1).

It is `cosine_score` of features of `RegionCrop`s, of the boxes around the holes, and of the `whole` exemplars.
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

SIDE = 224  # of the pictures that CLIP sees
Convention = Literal["original", "exact"]


class Whole:
    """All of a picture, stretched to a square by Pillow's bicubic kernel; both conventions see the exemplar so."""

    name = "squashed to 224 x 224 by Pillow's bicubic"

    def __call__(self, picture: Image.Image) -> Tensor:
        """RGB picture -> (3, 224, 224), normalised for CLIP."""
        return _normalised(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[0]


whole = Whole()


@dataclass(frozen=True)
class RegionCrop:
    """What CLIP sees of a box in a picture, stretched to a square.

    Attributes:
        box: in pixels of the picture, x1 and y1 exclusive.
        convention: `original` is the published script's: the box without its last row and column, cut out of the
            normalised picture and scaled bilinearly without antialiasing; `exact` is the whole box, scaled by Pillow's
            antialiased bicubic kernel.
    """

    box: Box
    convention: Convention = "original"

    @property
    def name(self) -> str:
        return f"box {','.join(map(str, self.box))}, {self.convention} crop"

    def __call__(self, picture: Image.Image) -> Tensor:
        """RGB picture -> (3, 224, 224), normalised for CLIP.

        Raises:
            UserError: the box reaches beyond the picture, or nothing is left of it.
        """
        x0, y0, x1, y1 = self.box
        if self.convention == "original":
            x1, y1 = x1 - 1, y1 - 1
        width, height = picture.size
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UserError(f"{self.name}: empty, or beyond the picture of {width}x{height}")
        if self.convention == "exact":
            return whole(picture.crop(self.box))
        pixels = _normalised(picture)[:, :, y0:y1, x0:x1]
        return F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=False)[0]


def cosine_score(a: Tensor, b: Tensor) -> Tensor:
    """100 times the cosine between the rows of features (N, d) and (N, d): (N,) float64 on the CPU."""
    return 100 * F.cosine_similarity(a.double(), b.double(), dim=1).cpu()


def _normalised(picture: Image.Image) -> Tensor:
    return clip_normalise((to_tensor(picture) + 1) / 2)
