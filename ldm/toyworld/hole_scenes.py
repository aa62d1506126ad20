"""Holes to be filled and measured: fresh ToyWorld scenes, each with a mask of its own."""

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.images import to_tensor
from ldm.toyworld.render import render_scene, scene_id
from ldm.utils.holes import hole_mask
from ldm.utils.random import key_seed


class HoleScenes(Dataset):
    """Scenes that no training set holds; those of an index are the same for all kinds of masks.

    An item is a function of (seed, kind, index) and of the size:
        image: (3, size, size) in [-1, 1].
        mask: (1, size, size), 1 = repaint.

    Args:
        kind: see `ldm.utils.holes.hole_mask`.
        size: pixels.

    Raises:
        UserError: there is no such kind, or the size is too small for one.
    """

    def __init__(self, seed: int, length: int, kind: str, size: int = 64):
        self.seed, self.length, self.kind, self.size = seed, length, kind, size
        self._mask(0)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        scene = render_scene(np.random.default_rng(scene_id(self.seed, "hole", index)), self.size)
        return {"image": to_tensor(scene.image), "mask": self._mask(index)}

    def _mask(self, index: int) -> Tensor:
        return hole_mask(self.kind, (self.size, self.size), key_seed("scene's hole", self.seed, index))[0]
