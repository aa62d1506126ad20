"""LPIPS (Zhang et al., 1801.03924) as a training loss."""

from pathlib import Path

from torch import Tensor

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.lpips import VGG16, make_lpips
from ldm.utils.errors import UserError
from ldm.utils.project import find_file


class Perceptual:
    """A weighted VGG16 distance between pictures.

    It is not a module, so that its frozen weights stay out of checkpoints, moving averages and gradient
    synchronisation. They follow the pictures to their device.

    Args:
        vgg16: torchvision's file of ImageNet weights; see `find_file`.
        weight: weight of the distance in a sum of losses.

    Raises:
        UserError: there is no such file, or it holds something else.
    """

    def __init__(self, vgg16: str | Path, weight: float = 1.0):
        self.weight = weight
        file = find_file(vgg16)
        if not file.is_file():
            raise UserError(f"vgg16 {file}: no such file; download this backbone of the perceptual loss from {VGG16}, "
                            "or train without it (training.params.perceptual=null)")  # fmt: skip
        self.lpips = make_lpips("vgg", read_tensors(file), str(vgg16))

    def __deepcopy__(self, memo: dict) -> "Perceptual":
        return self  # it never changes

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances (B,) between pictures (B, 3, H, W) in [-1, 1] of at least 16x16 pixels."""
        return self.lpips.to(a.device)(a, b)
