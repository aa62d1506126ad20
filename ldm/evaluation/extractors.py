"""Networks that compare pictures, each with its own preprocessing, opened by name.

Weights are the published ones, or random ones for a trial.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import Dialect, clip_vision, own
from ldm.checkpoints.load import fill, take
from ldm.checkpoints.lpips import ALEXNET, VGG16, classifier_shapes, make_lpips
from ldm.config import build, load_config
from ldm.models.clip_image import ClipImageEncoder, ProjectedClip
from ldm.models.contrastive import ContrastiveClip
from ldm.models.inception import fid_inception
from ldm.models.lpips import Lpips
from ldm.utils.clip import clip_normalise
from ldm.utils.errors import UserError
from ldm.utils.extras import require
from ldm.utils.image import to_tensor
from ldm.utils.project import find_file
from ldm.utils.random import generator

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


class Extractor(ABC):
    """A network that extracts features from pictures.

    Args:
        network: prepared pictures (B, 3, S, S) -> (B, d), in float32 on its own device.
        weights: a hash that identifies the weights, for `about`.
    """

    name: str
    preprocessing: str
    """A description of `prepare`: kernel, size and crop."""
    convention: str
    """The paper or code whose features these are, and how it takes them."""

    def __init__(self, network: nn.Module, weights: str = "unnamed"):
        self.network = network.eval().requires_grad_(False)
        self.weights = weights

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """Convert a picture of any size to (3, S, S) float32 on the CPU, as the network expects it, dropping alpha."""

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Extract features (B, d), float32 on the CPU, from prepared pictures (B, 3, S, S)."""
        device = next(self.network.parameters()).device
        with full_precision():
            return self.network(pixels.to(device)).float().cpu()

    @property
    def about(self) -> dict[str, str]:
        """Everything that the features of a picture depend on, for reports and cache keys."""
        return {
            "extractor": self.name,
            "weights": self.weights,
            "preprocessing": self.preprocessing,
            "convention": self.convention,
        }


class ClipFeatures(Extractor):
    """CLIP ViT-B/32 as in Paint by Example's evaluation, whose FID uses these features; d = 512."""

    name = "CLIP ViT-B/32"
    preprocessing = "short side to 224 by PIL's bicubic, centre crop 224"
    convention = "Paint by Example: projected, not scaled to length 1"

    @staticmethod
    def architecture() -> ProjectedClip:
        """Build OpenAI's network, without weights."""
        return ProjectedClip(ClipImageEncoder(224, 32, 768, 12, 12), nn.Linear(768, 512, bias=False))

    def prepare(self, image: Image.Image) -> Tensor:
        return clip_normalise(_resized_crop(image, 224, 224))


class ToyWorldClip(Extractor):
    """The CLIP model trained on ToyWorld."""

    name = "ToyWorld CLIP"
    preprocessing = "squashed to a square of the encoder's size by torch's antialiased bilinear"
    convention = "projected, not scaled to length 1"

    def __init__(self, clip: ContrastiveClip, weights: str = "unnamed"):
        super().__init__(ProjectedClip(clip.image_encoder, clip.image_projection), weights)

    def prepare(self, image: Image.Image) -> Tensor:
        return self.prepare_all(to_tensor(image))[0]

    def prepare_all(self, images: Tensor) -> Tensor:
        """Prepare pictures (B, 3, H, W) in [-1, 1] of any size as (B, 3, S, S)."""
        side = self.network.encoder.image_size
        pixels = (images.float() + 1) / 2
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return clip_normalise(pixels)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return 1 - the cosine of the features of pictures (B, 3, H, W) in [-1, 1], (B,) float64 on the CPU.

        0 for equal pictures, 1 for unrelated ones, at most 2. It measures whether the same things are visible, whereas
        PSNR compares pixels.
        """
        return 1 - F.cosine_similarity(*(self(self.prepare_all(images)).double() for images in (a, b)))


class InceptionFeatures(Extractor):
    """TensorFlow's Inception of 2015, as in FID (Heusel et al., 1706.08500), d = 2048."""

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
        """Build DINO's network, without weights."""
        import timm  # slow to import

        return timm.create_model("vit_small_patch16_224.dino", num_classes=0)

    def prepare(self, image: Image.Image) -> Tensor:
        from torchvision.transforms import functional as TF

        return TF.normalize(_resized_crop(image, 256, 224), IMAGENET_MEAN, IMAGENET_STD)


class LpipsDistance:
    """LPIPS (Zhang et al., 1801.03924) as a metric.

    Args:
        network: on its own device.
        weights: a hash that identifies the weights of its classifier, for `about`.
    """

    def __init__(self, network: Lpips, weights: str = "unnamed"):
        self.network = network.eval().requires_grad_(False)
        self.weights = weights
        self.name = f"LPIPS ({network.net})"

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances between pictures (B, 3, H, W) in [-1, 1], (B,) float32 on the CPU."""
        device = self.network.heads[0].device
        with full_precision():
            return self.network(a.float().to(device), b.float().to(device)).cpu()

    @property
    def about(self) -> dict[str, str]:
        """Everything that a distance depends on besides the pictures."""
        return {
            "extractor": self.name,
            "weights": self.weights,
            "preprocessing": "none: at the pictures' own size",
            "convention": "lpips 0.1 with its published layer weights, pictures in [-1, 1]",
        }


def full_precision() -> AbstractContextManager:
    """Return a context in which convolutions on GPUs use float32, where torch's default is TF32, with 10 bits."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def _resized_crop(image: Image.Image, side: int, crop: int) -> Tensor:
    """Scale the short side of a picture to `side`, and return its centre crop (3, crop, crop) in [0, 1]."""
    from torchvision.transforms import InterpolationMode  # slow to import
    from torchvision.transforms import functional as TF

    image = TF.resize(image.convert("RGB"), side, InterpolationMode.BICUBIC)
    return TF.to_tensor(TF.center_crop(image, crop))


RANDOM = "random"
COUNTERS = "num_batches_tracked"  # step counters of norms, missing from some files


class Kind(NamedTuple):
    """A kind of network that `open_extractor` opens.

    Attributes:
        metric: network and description of its weights -> extractor or distance.
        network: tensors of a file (None: random weights) and the file's name -> network.
        file: official name of the weights file, in pretrained_models.
        origin: where to get it.
    """

    metric: Callable[[nn.Module, str], Extractor | LpipsDistance]
    network: Callable[[Mapping[str, Tensor] | None, str], nn.Module]
    file: str
    origin: str


def open_extractor(
    kind: str, weights: str | Path | None = None, device: str | torch.device = "cpu"
) -> Extractor | LpipsDistance:
    """Open a network of the metrics on a device.

    Args:
        kind: one of `KINDS`; `lpips_*` are distances between two pictures, the others extract features.
        weights: a file, by default the published one in pretrained_models; "random" for trials, with weights that are
            always the same and marked in `about`: their numbers mean nothing.

    Raises:
        UserError: there is no such kind or file (the message says where to get it), or it contains something else.
    """
    if kind not in KINDS:
        raise UserError(f"extractor {kind!r}: expected one of {', '.join(KINDS)}")
    metric, network, file, origin = KINDS[kind]
    if weights == RANDOM:
        return metric(network(None, RANDOM).to(device), "random, seed 0: the numbers mean nothing")
    path = find_file(f"pretrained_models/{file}") if weights is None else Path(weights)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected the weights of {kind}; get them from {origin}")
    return metric(network(read_tensors(path), str(path)).to(device), f"sha256 {sha256(path)}")


def sha256(file: Path) -> str:
    """Return the SHA-256 digest of a file."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def random_values(shapes: Mapping[str, torch.Size], seed: int = 0) -> dict[str, Tensor]:
    """Draw values for a network's tensors, by name, that preserve the scale of activations (He, 1502.01852)."""
    values = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            noise = torch.randn(shape, generator=generator(seed, "random", name))
            values[name] = noise * (2 / shape[1:].numel()) ** 0.5
        else:
            identity = name.endswith(("weight", "running_var"))  # of a norm
            values[name] = torch.ones(shape) if identity else torch.zeros(shape)
    return values


def _filled(
    empty: Callable[[], nn.Module],
    tensors: Mapping[str, Tensor] | None,
    source: str,
    dialect: Dialect = own,
    **how: Any,
) -> nn.Module:
    """Build a network and fill it strictly; `how` is passed to `take`."""
    with torch.device("meta"):
        network = empty()
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith(COUNTERS)}
    fill(network, random_values(shapes) if tensors is None else take(shapes, tensors, source, dialect, **how))
    return network


def _clip_vit_b32(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """Build CLIP from a file of OpenAI or open_clip (the projection is a matrix) or of Hugging Face (a layer)."""
    names = tensors or {}
    hugging_face = "visual_projection.weight" in names
    if "visual.proj" in names:
        tensors = {**names, "visual.proj": names["visual.proj"].T}
    tower = clip_vision("vision_model." if hugging_face else "visual.", hugging_face)

    def dialect(name: str) -> tuple[str, ...]:
        if name == "projection.weight":
            return ("visual_projection.weight" if hugging_face else "visual.proj",)
        return tower(f"conditioner.{name}")

    return _filled(ClipFeatures.architecture, tensors, source, dialect, within="encoder.visual.")


def _toyworld_clip(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    return _filled(lambda: build(load_config("toyworld_clip").model), tensors, source)


def _inception(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    """Build Inception from torch-fidelity's or pytorch-fid's file, without its classifier of 1008 classes."""
    beyond = ("fc.weight", "fc.bias", COUNTERS)
    return _filled(InceptionFeatures.architecture, tensors, source, skip=lambda name: name.endswith(beyond))


def _dino_vits16(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
    return _filled(DinoFeatures.architecture, tensors, source)


def _lpips(net: str) -> Callable[[Mapping[str, Tensor] | None, str], nn.Module]:
    def network(tensors: Mapping[str, Tensor] | None, source: str) -> nn.Module:
        """Build LPIPS; random are only the classifier's weights, since random layer weights give negative distances."""
        return make_lpips(net, random_values(classifier_shapes(net)) if tensors is None else tensors, source)

    return network


OPENAI = (
    "https://openaipublic.azureedge.net/clip/models/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
)
KINDS = {
    "clip_vit_b32": Kind(ClipFeatures, _clip_vit_b32, "ViT-B-32.pt", f"{OPENAI}/ViT-B-32.pt"),
    "inception": Kind(
        InceptionFeatures,
        _inception,
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    "dino_vits16": Kind(
        DinoFeatures,
        _dino_vits16,
        "dino_deitsmall16_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    ),
    "lpips_alex": Kind(LpipsDistance, _lpips("alex"), "alexnet-owt-7be5be79.pth", ALEXNET),
    "lpips_vgg": Kind(LpipsDistance, _lpips("vgg"), "vgg16-397923af.pth", VGG16),
    "toyworld_clip": Kind(ToyWorldClip, _toyworld_clip, "toyworld/clip.safetensors", "this repository"),
}
"""The names that `open_extractor` knows."""
