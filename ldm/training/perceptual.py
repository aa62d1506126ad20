"""LPIPS, the perceptual distance of Zhang et al. (1801.03924), as a training loss."""

from pathlib import Path

import torch
import torchmetrics
import torchvision
from torch import Tensor

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import own
from ldm.checkpoints.load import fill, take
from ldm.config import ROOT
from ldm.utils.errors import UserError

VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
HEADS = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
STAGES = (4, 9, 16, 23, 30)  # layers of VGG16 before which a comparison is made: after the last ReLU at each size
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation in [-1, 1]


class Perceptual:
    """Distances of VGG16's activations, weighted as people judge differences (version 0.1 of the published weights).

    Neither a module nor a part of one: its frozen weights are in no checkpoint, no moving average and no exchange
    between devices. They follow the pictures to their device.

    Args:
        vgg16: torchvision's file of ImageNet weights; a relative path starts at the project's folder.
        weight: of the distance in a sum of losses.

    Raises:
        UserError: there is no such file, or it holds something else.
    """

    def __init__(self, vgg16: str | Path, weight: float = 1.0):
        self.weight = weight
        with torch.device("meta"):
            self.features = torchvision.models.vgg16(weights=None, init_weights=False).features[: STAGES[-1]]
        shapes = {f"features.{name}": tensor.shape for name, tensor in self.features.state_dict().items()}
        values = take(shapes, read_vgg16(ROOT / vgg16), str(vgg16), own, within="features.")
        fill(self.features, {name.removeprefix("features."): value for name, value in values.items()})
        self.features.eval().requires_grad_(False)
        heads = read_tensors(HEADS)
        self.heads = [heads[f"lin{k}.model.1.weight"].clone() for k in range(len(STAGES))]  # (1, C, 1, 1) each

    def __deepcopy__(self, memo: dict) -> "Perceptual":
        return self  # nothing in it ever changes

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,): distances between pictures (B, 3, H, W) in [-1, 1], at least 16 pixels a side."""
        self._follow(a.device)
        distances = 0
        for head, x, y in zip(self.heads, self._activations(a), self._activations(b), strict=True):
            distances = distances + (head * (x - y).square()).sum(1).mean((1, 2))
        return distances

    def _activations(self, x: Tensor) -> list[Tensor]:
        """What VGG16 makes of the pictures at its five sizes, each position scaled to length 1."""
        shift, scale = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, found = (x - shift) / scale, []
        for start, end in zip((0, *STAGES), STAGES, strict=False):
            x = self.features[start:end](x)
            y = x.float()
            found.append(y / (y.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return found

    def _follow(self, device: torch.device) -> None:
        if self.heads[0].device != device:
            self.features.to(device)
            self.heads = [head.to(device) for head in self.heads]


def read_vgg16(file: Path) -> dict[str, Tensor]:
    """The weights of torchvision's file."""
    if not file.is_file():
        raise UserError(f"vgg16 {file}: no such file, the backbone of the perceptual loss; get it from {VGG16}, "
                        "or train without it (training.params.perceptual=null)")  # fmt: skip
    return read_tensors(file)
