"""Pictures from disk, and the data set of pictures alone."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldm.utils.errors import UserError
from ldm.utils.image import decode
from ldm.utils.random import key_seed

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def read_picture(file: Path | str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright; a missing, damaged or foreign file is a UserError."""
    return np.asarray(decode(file).convert("RGB"))


def to_tensor(picture: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(127.5).sub_(1)


class Epochs:
    """Random decisions of an item as a function of (seed, epoch, item), whichever worker process makes it.

    The epoch comes with the index: item i of epoch e is asked for as `data[e * len(data) + i]`, so that nothing needs
    to be told when an epoch begins, and workers may load ahead across its end.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def random(self, index: int) -> Random:
        """The source of every random decision about the item at `index`, counted on through the epochs."""
        epoch, item = divmod(index, len(self))
        return Random(key_seed(self.seed, epoch, item))


class ImageFolder(Epochs, Dataset):
    """Every picture below a folder, as {"image": (3, size, size) float32 in [-1, 1]}.

    Args:
        root: searched recursively; order is that of the sorted paths.
        size: the shorter side is resized to it (bicubic), then the centre is cut out.
        flip: mirror half of the items, anew each epoch.
    """

    def __init__(self, root: str, size: int, flip: bool = True, seed: int = 0):
        super().__init__(seed)
        self.files = sorted(file for file in Path(root).rglob("*") if file.suffix.lower() in SUFFIXES)
        if not self.files:
            kinds = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{root}: no pictures ({kinds}) in this folder or below; dataset/README.md says whence")
        self.size, self.flip = size, flip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = to_tensor(centre_square(read_picture(self.files[index % len(self)]), self.size))
        if self.flip and self.random(index).random() < 0.5:
            image = image.flip(-1)
        return {"image": image}


def centre_square(picture: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3): shorter side resized to `size`, centre cut out."""
    height, width = picture.shape[:2]
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    if side == size:
        return picture[y0 : y0 + side, x0 : x0 + side]
    box = (x0, y0, x0 + side, y0 + side)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box))
