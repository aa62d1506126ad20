"""What pictures show, as a CLIP sees them (Radford et al., 2103.00020), and how far two pictures are apart in that."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.models.contrastive import ContrastiveClip
from ldm.utils.clip import clip_normalise


class ClipDistance:
    """Feature distance of whole pictures: 1 minus the cosine of their image embeddings in CLIP's joint space.

    0 for the same picture, 1 for unrelated ones, 2 at most. Of ToyWorld's CLIP, which knows the world it is asked
    about, it tells whether the same things are seen, where PSNR tells whether the same pixels are.
    """

    def __init__(self, clip: ContrastiveClip):
        self.clip = clip

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], of any size -> unit vectors (B, embed_dim)."""
        side = self.clip.image_encoder.image_size
        pixels = ((images + 1) / 2).to(self.clip.image_projection.weight)
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return self.clip.encode_image(clip_normalise(pixels))

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Between pictures (B, 3, H, W) in [-1, 1]: (B,) float64 on the CPU."""
        return 1 - (self.features(a).double() * self.features(b).double()).sum(1).cpu()
