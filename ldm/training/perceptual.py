"""LPIPS (Zhang et al., 1801.03924) as a training loss."""

from pathlib import Path

from torch import Tensor

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.lpips import VGG16, make_lpips
from ldm.utils.errors import UserError
from ldm.utils.project import find_file


class Perceptual:
    """Distances by VGG16, with a weight.

    Neither a module nor a part of one: its frozen weights are in no checkpoint, no moving average and no exchange
    between devices. They follow the pictures to their device.

    Args:
        vgg16: torchvision's file of ImageNet weights; see `find_file`.
        weight: of the distance in a sum of losses.

    Raises:
        UserError: there is no such file, or it holds something else.
    """

    def __init__(self, vgg16: str | Path, weight: float = 1.0):
        self.weight = weight
        file = find_file(vgg16)
        if not file.is_file():
            raise UserError(f"vgg16 {file}: no such file, the backbone of the perceptual loss; get it from {VGG16}, "
                            "or train without it (training.params.perceptual=null)")  # fmt: skip
        self.lpips = make_lpips("vgg", read_tensors(file), str(vgg16))

    def __deepcopy__(self, memo: dict) -> "Perceptual":
        return self  # nothing in it ever changes

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,): distances between pictures (B, 3, H, W) in [-1, 1], at least 16 pixels a side."""
        return self.lpips.to(a.device)(a, b)
