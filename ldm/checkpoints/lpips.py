"""LPIPS from files: torchvision's classifier, and the published weights of its layers, which torchmetrics ships."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import own
from ldm.checkpoints.load import fill, take
from ldm.models.lpips import Lpips

# Version 0.1 of the weights, in a package that is slow to import
HEADS = Path(find_spec("torchmetrics").origin).parent / "functional" / "image" / "lpips_models"
VGG16 = "https://download.pytorch.org/models/vgg16-397923af.pth"
ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"


def make_lpips(net: str, classifier: Mapping[str, Tensor], source: str) -> Lpips:
    """Build an LPIPS distance, in eval mode and without gradients of its own.

    Args:
        net: `alex` or `vgg`.
        classifier: tensors of torchvision's AlexNet or VGG16, of which `features.*` are used.
        source: the file's name, for messages.

    Raises:
        UserError: they belong to another network.
    """
    with torch.device("meta"):
        lpips = Lpips(net)
    values = take(classifier_shapes(net), classifier, source, own, within="features.")
    heads = read_tensors(HEADS / f"{net}.pth")
    values |= {f"heads.{k}": heads[f"lin{k}.model.1.weight"].clone() for k in range(len(lpips.heads))}
    fill(lpips, values)
    return lpips.eval().requires_grad_(False)


def classifier_shapes(net: str) -> dict[str, torch.Size]:
    """Return the names and shapes that are used of torchvision's file."""
    with torch.device("meta"):
        tensors = Lpips(net).features.state_dict()
    return {f"features.{name}": tensor.shape for name, tensor in tensors.items()}
