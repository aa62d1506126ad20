"""Edits in words to be measured: fresh ToyWorld scenes, and the same caption with one word of it changed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ldm.data.images import to_tensor
from ldm.toyworld.judged import labels
from ldm.toyworld.render import CLASSES, COLOURS, Object, Scene, render_scene, scene_caption, scene_id
from ldm.utils.errors import UserError

CHANGES = {"class": ("cls", CLASSES), "colour": ("colour", tuple(COLOURS))}  # head of the judge -> field, its values
Labels = tuple[int, int, int]  # class, colour and pattern


class AttributeEdits(Dataset):
    """One thing of a scene is to get another colour or to become another thing, and all else is to stay.

    Caption and thing belong together: no other thing in the scene is described by the same words, neither before the
    edit nor after it. A scene in which no change fulfils this is drawn again.

    An item is a function of (seed, change, index), and no training set holds its scene:
        image: (3, size, size) in [-1, 1].
        mask: (1, size, size), 1 where the thing is visible; box: (4,), its bounds in pixels, x1 and y1 exclusive.
        source, target: captions of the whole scene, before and after.
        class, colour, pattern: int, of the thing after the edit.
        thing: int, its place in the caption, counted from 0.

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
            "image": to_tensor(scene.image),
            "mask": torch.from_numpy(edited.mask)[None].float(),
            "box": torch.tensor(edited.box),
            "source": scene.caption,
            "target": scene_caption(things, scene.background),
            "thing": place,
            **labels(edited),
        }


def possible_edits(scene: Scene, field: str, values: Sequence[str]) -> list[tuple[int, Object]]:
    """(place, the thing there with another value of a field), where no other thing has its old or its new caption."""
    edits = []
    for place, thing in enumerate(scene.objects):
        others = {other.caption for other in scene.objects if other is not thing}
        changed = [replace(thing, **{field: value}) for value in values if value != getattr(thing, field)]
        if thing.caption not in others:
            edits += [(place, edited) for edited in changed if edited.caption not in others]
    return edits


def draw_things(wanted: Sequence[Labels], seed: int, size: int = 64) -> Iterator[dict[str, Any]]:
    """A real thing for every wanted (class, colour, pattern), as often as it is wanted, from freshly drawn scenes.

    Yields:
        {"image" (3, size, size) in [-1, 1], "box" (4,), "visible" (1, size, size), "class", "colour", "pattern"} in the
        order in which they turn up; a scene is there for one thing only.
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
                    "image": to_tensor(scene.image),
                    "box": torch.tensor(thing.box),
                    "visible": torch.from_numpy(thing.mask)[None].float(),
                    **kind,
                }
                break
