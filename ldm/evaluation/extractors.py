"""Networks by which pictures are compared: each with its own way to prepare them, and a name that no other has."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ldm.models.clip_image import ClipImageEncoder, ProjectedClip
from ldm.models.contrastive import ContrastiveClip
from ldm.models.inception import fid_inception
from ldm.models.lpips import Lpips
from ldm.utils.clip import clip_normalise
from ldm.utils.extras import require
from ldm.utils.image import to_tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


class Extractor(ABC):
    """Pictures to features.

    Args:
        network: prepared pictures (B, 3, S, S) -> (B, d); it is used as it is, in float32 and on its device.
        weights: which ones they are (a hash), for `about`.
    """

    name: str
    preprocessing: str
    """What `prepare` does: kernel, size and crop."""
    convention: str
    """Whose features they are, as that paper or code takes them."""

    def __init__(self, network: nn.Module, weights: str = "unnamed"):
        self.network = network.eval().requires_grad_(False)
        self.weights = weights

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """A picture of any size -> (3, S, S) float32 on the CPU, as the network expects it; alpha is dropped."""

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, 3, S, S) -> features (B, d), float32 on the CPU."""
        device = next(self.network.parameters()).device
        with full_precision():
            return self.network(pixels.to(device)).float().cpu()

    @property
    def about(self) -> dict[str, str]:
        """All that the features of a picture depend on, for reports and the key of a cache."""
        return {
            "extractor": self.name,
            "weights": self.weights,
            "preprocessing": self.preprocessing,
            "convention": self.convention,
        }


class ClipFeatures(Extractor):
    """CLIP ViT-B/32 as Paint by Example's evaluation takes it: what it calls FID is of these, d = 512."""

    name = "CLIP ViT-B/32"
    preprocessing = "short side to 224 by PIL's bicubic, centre crop 224"
    convention = "Paint by Example: projected, not scaled to length 1"

    @staticmethod
    def architecture() -> ProjectedClip:
        """OpenAI's network, to be filled."""
        return ProjectedClip(ClipImageEncoder(224, 32, 768, 12, 12), nn.Linear(768, 512, bias=False))

    def prepare(self, image: Image.Image) -> Tensor:
        return clip_normalise(_resized_crop(image, 224, 224))


class ToyWorldClip(Extractor):
    """The CLIP that has been trained on ToyWorld, which knows the world it is asked about."""

    name = "ToyWorld CLIP"
    preprocessing = "squashed to a square of the encoder's size by torch's antialiased bilinear"
    convention = "projected, not scaled to length 1"

    def __init__(self, clip: ContrastiveClip, weights: str = "unnamed"):
        super().__init__(ProjectedClip(clip.image_encoder, clip.image_projection), weights)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.prepare_all(to_tensor(image))[0]

    def prepare_all(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], of any size -> (B, 3, S, S)."""
        side = self.network.encoder.image_size
        pixels = (images.float() + 1) / 2
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return clip_normalise(pixels)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Between pictures (B, 3, H, W) in [-1, 1]: 1 - the cosine of their features, (B,) float64 on the CPU.

        0 for the same picture, 1 for unrelated ones, 2 at most: it tells whether the same things are seen, where PSNR
        tells whether the same pixels are.
        """
        return 1 - F.cosine_similarity(*(self(self.prepare_all(images)).double() for images in (a, b)))


class InceptionFeatures(Extractor):
    """TensorFlow's Inception of 2015, as FID takes it (Heusel et al., 1706.08500), d = 2048."""

    name = "Inception"
    preprocessing = "squashed to 299 x 299 by TensorFlow 1's bilinear, without antialiasing"
    convention = "FID: pool3 of TensorFlow's Inception of 2015"
    architecture = staticmethod(fid_inception)

    def prepare(self, image: Image.Image) -> Tensor:
        require("torch_fidelity")
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        pixels = (to_tensor(image) + 1) * 127.5
        pixels = interpolate_bilinear_2d_like_tensorflow1x(pixels, (299, 299), align_corners=False)[0]
        return (pixels - 128) / 128


class DinoFeatures(Extractor):
    """DINO's ViT-S/16 (Caron et al., 2104.14294): the class token of its last layer, d = 384."""

    name = "DINO ViT-S/16"
    preprocessing = "short side to 256 by PIL's bicubic, centre crop 224"
    convention = "DINO's evaluation: class token after the last norm"

    @staticmethod
    def architecture() -> nn.Module:
        """DINO's network, to be filled."""
        import timm  # here: it is slow to import

        return timm.create_model("vit_small_patch16_224.dino", num_classes=0)

    def prepare(self, image: Image.Image) -> Tensor:
        from torchvision.transforms import functional as TF

        return TF.normalize(_resized_crop(image, 256, 224), IMAGENET_MEAN, IMAGENET_STD)


class LpipsDistance:
    """LPIPS (Zhang et al., 1801.03924) as a measurement.

    Args:
        network: in use, on its device.
        weights: of its classifier (a hash), for `about`.
    """

    def __init__(self, network: Lpips, weights: str = "unnamed"):
        self.network = network.eval().requires_grad_(False)
        self.weights = weights
        self.name = f"LPIPS ({network.net})"

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Between pictures (B, 3, H, W) in [-1, 1]: (B,) float32 on the CPU."""
        device = self.network.heads[0].device
        with full_precision():
            return self.network(a.float().to(device), b.float().to(device)).cpu()

    @property
    def about(self) -> dict[str, str]:
        """All that a distance depends on besides the pictures."""
        return {
            "extractor": self.name,
            "weights": self.weights,
            "preprocessing": "none: at the pictures' own size",
            "convention": "lpips 0.1 with its published layer weights, pictures in [-1, 1]",
        }


def full_precision() -> AbstractContextManager:
    """Convolutions in float32 on GPUs too, where torch's default is TF32, with 10 bits."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _resized_crop(image: Image.Image, side: int, crop: int) -> Tensor:
    """(3, crop, crop) in [0, 1]: the middle of the picture with its short side made `side`."""
    from torchvision.transforms import InterpolationMode  # here: it is slow to import
    from torchvision.transforms import functional as TF

    image = TF.resize(image.convert("RGB"), side, InterpolationMode.BICUBIC)
    return TF.to_tensor(TF.center_crop(image, crop))
