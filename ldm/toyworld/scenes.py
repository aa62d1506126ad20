"""Test sets of edits and holes: fresh ToyWorld scenes, which are in no training set."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.crops import cut, padded_box
from ldm.data.images import array_to_tensor
from ldm.data.masks import blob_mask, filled_box
from ldm.toyworld.render import CLASSES, COLOURS, Object, Scene, labels, render_scene, scene_caption, scene_id
from ldm.utils.errors import UserError
from ldm.utils.holes import hole_mask
from ldm.utils.random import key_seed

PADDING = 2  # pixels around the thing in a hole, an exemplar and a captioned crop


class ExemplarScenes(Dataset):
    """Edits by example in which scene and exemplar never match: the new thing has another class and another colour.

    An item is a function of (seed, index):
        image: (3, size, size) in [-1, 1]; mask: (1, size, size), 1 = repaint, the box of one thing, padded.
        blob: like mask, for a hole drawn around that thing as if by hand.
        box: (4,) the box of the old thing in pixels; visible: (1, size, size), 1 where it is visible.
        exemplar: PIL picture, the padded crop of the new thing.
        class, colour, pattern: int, of the new thing.
        donor, donor_box, donor_visible: the scene that the exemplar comes from, as `image`, its box there, and where
            it is visible, (1, size, size).
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
        mask = filled_box(padded_box(old.box, PADDING, size, size), size, size)
        blob = blob_mask(old.box, size, size, np.random.default_rng(scene_id(self.seed, "blob", index)))
        return {
            "image": array_to_tensor(scene.image),
            "mask": torch.from_numpy(mask)[None].float() / 255,
            "blob": torch.from_numpy(blob)[None].float() / 255,
            "box": torch.tensor(old.box),
            "visible": torch.from_numpy(old.mask)[None].float(),
            "exemplar": Image.fromarray(cut(donor.image, padded_box(new.box, PADDING, size, size))),
            "donor": array_to_tensor(donor.image),
            "donor_box": torch.tensor(new.box),
            "donor_visible": torch.from_numpy(new.mask)[None].float(),
            **labels(new),
        }


def collate(items: list[dict[str, Any]]) -> dict[str, Tensor | list]:
    """Batch items: tensors are stacked, ints become (B,) int64, pictures and texts lists."""
    batch = {key: [item[key] for item in items] for key in items[0]}
    return {key: _together(values) for key, values in batch.items()}


def _together(values: list) -> Tensor | list:
    if torch.is_tensor(values[0]):
        return torch.stack(values)
    return torch.tensor(values) if isinstance(values[0], int) else values


CHANGES = {"class": ("cls", CLASSES), "colour": ("colour", tuple(COLOURS))}  # head of the judge -> field, its values
Labels = tuple[int, int, int]  # class, colour and pattern


class CaptionScenes(Dataset):
    """Edits by caption: one thing of a scene changes its colour or its class, and the rest stays.

    The thing's caption is unique: no other thing in the scene has the same words, before or after the edit. A scene
    that allows no such change is redrawn.

    An item is a function of (seed, change, index), and its scene is in no training set:
        image: (3, size, size) in [-1, 1].
        mask: (1, size, size), 1 where the thing is visible; box: (4,), its bounds in pixels, x1 and y1 exclusive.
        source, target: captions of the whole scene, before and after.
        class, colour, pattern: int, of the thing after the edit.
        thing: int, its position in the caption, from 0.

    Args:
        change: `colour` or `class`.
        size: pixels.
    """

    def __init__(self, seed: int, length: int, change: str, size: int = 64):
        if change not in CHANGES:
            raise UserError(f"change {change!r}: expected one of {', '.join(CHANGES)}")
        self.seed, self.length, self.change, self.size = seed, length, change, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng(scene_id(self.seed, f"{self.change} edit", index))
        choices: list[tuple[int, Object]] = []
        while not choices:
            scene = render_scene(rng, self.size)
            choices = possible_edits(scene, *CHANGES[self.change])
        place, edited = choices[int(rng.integers(len(choices)))]
        things = [*scene.objects[:place], edited, *scene.objects[place + 1 :]]
        return {
            "image": array_to_tensor(scene.image),
            "mask": torch.from_numpy(edited.mask)[None].float(),
            "box": torch.tensor(edited.box),
            "source": scene.caption,
            "target": scene_caption(things, scene.background),
            "thing": place,
            **labels(edited),
        }


def possible_edits(scene: Scene, field: str, values: Sequence[str]) -> list[tuple[int, Object]]:
    """List (position, the thing there with another value of a field) whose old and new captions no other thing has."""
    edits = []
    for place, thing in enumerate(scene.objects):
        others = {other.caption for other in scene.objects if other is not thing}
        changed = [replace(thing, **{field: value}) for value in values if value != getattr(thing, field)]
        if thing.caption not in others:
            edits += [(place, edited) for edited in changed if edited.caption not in others]
    return edits


def draw_things(wanted: Sequence[Labels], seed: int, size: int = 64) -> Iterator[dict[str, Any]]:
    """Draw scenes until every wanted (class, colour, pattern) has occurred as often as it is listed.

    Yields:
        {"image" (3, size, size) in [-1, 1], "box" (4,), "visible" (1, size, size), "class", "colour", "pattern"} in the
        order of their occurrence; a scene provides one thing at most.
    """
    missing, index = Counter(wanted), 0
    while missing.total():
        scene = render_scene(scene_id(seed, "wanted thing", index), size)
        index += 1
        for thing in scene.objects:
            kind = labels(thing)
            if missing[tuple(kind.values())]:
                missing[tuple(kind.values())] -= 1
                yield {
                    "image": array_to_tensor(scene.image),
                    "box": torch.tensor(thing.box),
                    "visible": torch.from_numpy(thing.mask)[None].float(),
                    **kind,
                }
                break


class HoleScenes(Dataset):
    """Scenes with holes, in no training set; all kinds of masks share the scene of an index.

    An item is a function of (seed, kind, index) and of the size:
        image: (3, size, size) in [-1, 1].
        mask: (1, size, size), 1 = repaint.

    Args:
        kind: see `ldm.utils.holes.hole_mask`.
        size: pixels.

    Raises:
        UserError: the kind is unknown, or the size is too small for it.
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
        return {"image": array_to_tensor(scene.image), "mask": self._mask(index)}

    def _mask(self, index: int) -> Tensor:
        return hole_mask(self.kind, (self.size, self.size), key_seed("scene's hole", self.seed, index))[0]
