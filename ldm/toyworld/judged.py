"""ToyWorld as the judge learns it: a picture, the box around one thing in it, and what that thing is."""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.utils.data import Dataset

from ldm.data.images import Epochs, to_tensor
from ldm.toyworld.render import CLASSES, COLOURS, PATTERNS, Object, render_scene

ALONE, IN_COMPANY = 0.5, 0.12  # how far the side of a box moves outwards at most, of the thing's extent


def labels(thing: Object) -> dict[str, int]:
    """The right answers of the judge's heads."""
    return {
        "class": CLASSES.index(thing.cls),
        "colour": list(COLOURS).index(thing.colour),
        "pattern": PATTERNS.index(thing.pattern),
    }


class ToyWorldJudged(Epochs, Dataset):
    """One thing of one freshly drawn scene per item: {"image", "box", "class", "colour", "pattern"}.

    image: (3, size, size) float32 in [-1, 1]. box: (4,) float32, x0, y0, x1, y1 in pixels. The others: int. Item i is a
    function of (seed, epoch, i).

    An edited picture is softer than a drawn one, and what is painted into a hole need not fill it. With `augment` the
    judge sees both: half of the pictures get blur and noise of the strength of an autoencoder's, and every side of the
    box moves, far where nothing else is in the scene.

    Args:
        length: number of items.
        augment: False gives the picture as drawn and the exact box.
        size: pixels.
    """

    def __init__(self, length: int, augment: bool, seed: int, size: int = 64):
        super().__init__(seed)
        self.length, self.augment, self.size = length, augment, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        rng = np.random.default_rng(self.random(index).getrandbits(64))
        scene = render_scene(rng, self.size)
        thing = scene.objects[int(rng.integers(len(scene.objects)))]
        image, box = scene.image, np.array(thing.box, np.float32)
        if self.augment:
            image = soften(image, rng)
            box = shift_sides(box, ALONE if len(scene.objects) == 1 else IN_COMPANY, rng)
        return {"image": to_tensor(image), "box": torch.from_numpy(box), **labels(thing)}


def soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 -> the same, in half of the cases blurred and noisy."""
    if rng.random() < 0.5:
        return image
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0, 6)
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)


def shift_sides(box: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Each side of (x0, y0, x1, y1) moves on its own, up to `reach` of the extent outwards or 6 % inwards."""
    extent = np.tile(box[2:] - box[:2], 2)
    return (box + np.array([-1, -1, 1, 1]) * rng.uniform(-0.06, reach, 4) * extent).astype(np.float32)
