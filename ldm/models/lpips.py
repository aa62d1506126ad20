"""LPIPS, the perceptual distance of Zhang et al. (1801.03924)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation in [-1, 1]


class Backbone(NamedTuple):
    """A classifier whose activations are compared.

    Attributes:
        classifier: torchvision's name.
        stages: layers before which activations are compared: each is after the last ReLU at its size.
        channels: number of channels there.
    """

    classifier: str
    stages: tuple[int, ...]
    channels: tuple[int, ...]


BACKBONES = {
    "alex": Backbone("alexnet", (2, 5, 8, 10, 12), (64, 192, 384, 256, 256)),
    "vgg": Backbone("vgg16", (4, 9, 16, 23, 30), (64, 128, 256, 512, 512)),
}


class Lpips(nn.Module):
    """A distance of pictures by a classifier's activations, weighted to agree with human judgements (equation 1).

    Args:
        net: `alex`, by which papers compare pictures, or `vgg`, which is the better loss. Build it on the meta device:
            the classifiers of both are large, and only their convolutions are kept.
    """

    def __init__(self, net: str):
        from torchvision import models  # slow to import

        super().__init__()
        self.net = net
        classifier, self.stages, channels = BACKBONES[net]
        self.features = models.get_model(classifier, weights=None).features[: self.stages[-1]]
        self.heads = nn.ParameterList(torch.empty(1, count, 1, 1) for count in channels)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return distances (B,) between pictures (B, 3, H, W) in [-1, 1]; H, W >= 31 for `alex`, 16 for `vgg`."""
        distances = 0
        for head, x, y in zip(self.heads, self._activations(a), self._activations(b), strict=True):
            distances = distances + (head * (x - y).square()).sum(1).mean((1, 2))
        return distances

    def _activations(self, x: Tensor) -> list[Tensor]:
        """Return the classifier's activations at its five sizes, each position scaled to length 1."""
        shift, scale = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x, found = (x - shift) / scale, []
        for start, end in zip((0, *self.stages), self.stages, strict=False):
            x = self.features[start:end](x)
            y = x.float()
            found.append(y / (y.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return found
