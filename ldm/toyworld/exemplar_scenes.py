"""Edits to be measured: fresh ToyWorld scenes in which one thing makes room for a thing from another scene."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.crops import cut, padded_box
from ldm.data.images import to_tensor
from ldm.data.masks import blob_mask, box_mask
from ldm.toyworld.judged import labels
from ldm.toyworld.render import render_scene, scene_id

PADDING = 2  # pixels of surroundings that the hole, an exemplar and a captioned crop have around their thing


class CrossExemplars(Dataset):
    """Scene and exemplar never belong together: the exemplar's thing has another class and another colour.

    An item is a function of (seed, index):
        image: (3, size, size) in [-1, 1]; mask: (1, size, size), 1 = repaint, the box of one thing, padded.
        blob: the same for a hole as a hand draws it around that thing.
        box: (4,) the box of the thing that goes, in pixels; visible: (1, size, size), 1 where that thing is visible.
        exemplar: PIL picture, the padded crop of the thing that comes.
        class, colour, pattern: int, of the thing that comes.
        donor, donor_box, donor_visible: the scene that the exemplar is taken from, as `image`, its box there, and
            where the thing is visible, (1, size, size).
    """

    def __init__(self, seed: int, length: int, size: int = 64):
        self.seed, self.length, self.size = seed, length, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        size = self.size
        rng = np.random.default_rng(scene_id(self.seed, "cross", index))
        scene = render_scene(rng, size)
        old = scene.objects[int(rng.integers(len(scene.objects)))]
        others = []
        while not others:
            donor = render_scene(rng, size)
            others = [thing for thing in donor.objects if thing.cls != old.cls and thing.colour != old.colour]
        new = others[int(rng.integers(len(others)))]
        mask = box_mask(padded_box(old.box, PADDING, size, size), size, size)
        blob = blob_mask(old.box, size, size, np.random.default_rng(scene_id(self.seed, "blob", index)))
        return {
            "image": to_tensor(scene.image),
            "mask": torch.from_numpy(mask)[None].float() / 255,
            "blob": torch.from_numpy(blob)[None].float() / 255,
            "box": torch.tensor(old.box),
            "visible": torch.from_numpy(old.mask)[None].float(),
            "exemplar": Image.fromarray(cut(donor.image, padded_box(new.box, PADDING, size, size))),
            "donor": to_tensor(donor.image),
            "donor_box": torch.tensor(new.box),
            "donor_visible": torch.from_numpy(new.mask)[None].float(),
            **labels(new),
        }


def collate(items: list[dict[str, Any]]) -> dict[str, Tensor | list]:
    """Items -> one batch: tensors stacked, ints as (B,) int64, pictures and texts in lists."""
    batch = {key: [item[key] for item in items] for key in items[0]}
    return {key: _together(values) for key, values in batch.items()}


def _together(values: list) -> Tensor | list:
    if torch.is_tensor(values[0]):
        return torch.stack(values)
    return torch.tensor(values) if isinstance(values[0], int) else values
