"""The masks on which RePaint is measured (Lugmayr et al., 2201.09865, section 5), at any size, from a seed.

`wide` and `narrow` are the thick and thin masks of LaMa (Suvorov et al., 2109.07161): brush strokes that turn at
random, and for `wide` also boxes. LaMa states lengths for pictures of 256 x 256; here they are scaled to the geometric
mean of the sides, so that a seed gives the same drawing at every size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.utils.errors import UserError
from ldm.utils.random import key_seed

MIN_SIDE = 8
SCALE_OF = 256  # side of the pictures for which lengths are stated below
MAX_SHARE = 0.5  # of the picture; LaMa redraws masks that cover more
THINNEST = 1.4143  # a pixel's diagonal: no stroke falls between pixel centres


@dataclass(frozen=True)
class Strokes:
    """The parameters of LaMa's brush, in pixels at 256 x 256; ranges exclude their ends.

    Args:
        count: number of strokes.
        width, length: of the straight segments of a stroke, which has 1 to 5 of them.
    """

    count: tuple[int, int]
    width: tuple[int, int]
    length: tuple[int, int]


@dataclass(frozen=True)
class Boxes:
    """The parameters of LaMa's boxes, in pixels at 256 x 256; `margin` keeps boxes off the picture's edges."""

    count: tuple[int, int]
    side: tuple[int, int]
    margin: int


@dataclass(frozen=True)
class Random:
    """A kind of hole that is drawn anew for each seed: strokes, or with a probability `boxes_share` boxes instead."""

    strokes: Strokes
    boxes: Boxes | None = None
    boxes_share: float = 0.0

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw one (H, W) bool."""
        if self.boxes and rng.random() < self.boxes_share:
            return _boxes(self.boxes, size, rng)
        return _strokes(self.strokes, size, rng)


ALIASES = {
    "thick": "wide",
    "thin": "narrow",
    "nn2": "super_resolve",
    "ev2li": "alternate_lines",
    "genhalf": "half",
    "ex64": "expand",
}
"""The names of the paper's masks in the original's files."""
PAPER = ("wide", "narrow", "super_resolve", "alternate_lines", "half", "expand")
"""The paper's masks, in its tables' order."""


def hole_kind(name: str) -> str:
    """Return the kind, one of `HOLES`, that a name or an alias stands for.

    Raises:
        UserError: there is no such kind.
    """
    kind = ALIASES.get(name, name)
    if kind not in HOLES:
        raise UserError(f"mask type {kind!r}: expected one of {', '.join([*HOLES, *ALIASES])}")
    return kind


def hole_mask(kind: str, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Draw a mask (1, 1, H, W) float32 of zeros and ones, 1 = repaint; both values occur.

    Args:
        kind: one of `HOLES` or `ALIASES`. `wide`, `narrow` and `brush` are random and cover at most half of the
            picture; the others do not depend on the seed: `super_resolve` keeps every second pixel of every second
            row, `alternate_lines` every second row, `half` the left half, `expand` the central quarter of each side
            (64 x 64 of 256 x 256).
        size: (width, height) in pixels, 8 or more each.
        seed: the mask is a function of the arguments alone.

    Raises:
        UserError: there is no such kind, or the size is too small.
    """
    kind = hole_kind(kind)
    if min(size) < MIN_SIDE:
        raise UserError(f"mask type {kind}: size {size[0]}x{size[1]}, expected {MIN_SIDE} or more each way")
    drawing = HOLES[kind]
    if not isinstance(drawing, Random):
        hole = np.ones(size[::-1], bool)
        drawing(hole)
    else:
        rng = np.random.default_rng(key_seed("hole", kind, seed))
        while (hole := drawing.draw(size, rng)).mean() > MAX_SHARE:
            pass  # the next draw continues the same random numbers
    return torch.from_numpy(hole)[None, None].float()


def is_random(kind: str) -> bool:
    """Return whether a kind of hole, or an alias of one, depends on the seed."""
    return isinstance(HOLES[hole_kind(kind)], Random)


def _super_resolve(hole: np.ndarray) -> None:
    hole[::2, ::2] = False


def _alternate_lines(hole: np.ndarray) -> None:
    hole[::2] = False


def _half(hole: np.ndarray) -> None:
    hole[:, : hole.shape[1] // 2] = False


def _expand(hole: np.ndarray) -> None:
    height, width = hole.shape
    w, h = round(width / 4), round(height / 4)
    top, left = (height - h) // 2, (width - w) // 2
    hole[top : top + h, left : left + w] = False


def _scale(size: tuple[int, int]) -> float:
    return (size[0] * size[1]) ** 0.5 / SCALE_OF


def _strokes(numbers: Strokes, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw polylines with round joints and ends; as LaMa's, segments have one of eight directions and end at edges."""
    hole, scale = np.zeros(size[::-1], bool), _scale(size)
    for stroke in range(rng.integers(*numbers.count)):
        here = rng.random(2) * size
        for _ in range(rng.integers(1, 6)):
            angle = 0.01 + rng.integers(4)  # radians, from the vertical; every second stroke is mirrored
            direction = np.array([np.sin(angle), np.cos(angle)]) * ((-1, 1) if stroke % 2 == 0 else 1)
            there = (here + scale * rng.integers(*numbers.length) * direction).clip(0, size)
            _line(hole, here, there, max(scale * rng.integers(*numbers.width), THINNEST) / 2)
            here = there
    return hole


def _line(hole: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> None:
    """Set the pixels whose centres are within `radius` of the line between two points (x, y)."""
    low = np.floor(np.minimum(start, end) - radius).astype(int).clip(0)
    high = np.ceil(np.maximum(start, end) + radius).astype(int)
    window = hole[low[1] : high[1], low[0] : high[0]]
    y, x = (np.indices(window.shape) + 0.5) + low[::-1, None, None] - start[::-1, None, None]
    along, across = end - start
    squared = max(along**2 + across**2, 1e-9)
    at = ((x * along + y * across) / squared).clip(0, 1)
    window |= (x - at * along) ** 2 + (y - at * across) ** 2 <= radius**2


def _boxes(numbers: Boxes, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    hole, scale = np.zeros(size[::-1], bool), _scale(size)
    free = np.array(size) - 2 * numbers.margin * np.array(size) / SCALE_OF
    for _ in range(rng.integers(*numbers.count)):
        sides = np.minimum(scale * rng.integers(*numbers.side, size=2), free)
        corner = (np.array(size) - free) / 2 + rng.random(2) * (free - sides)
        (x0, y0), (x1, y1) = corner.round().astype(int), (corner + sides).round().astype(int)
        hole[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return hole


HOLES: dict[str, Random | Callable[[np.ndarray], None]] = {
    "wide": Random(
        Strokes(count=(1, 6), width=(5, 105), length=(10, 210)),
        Boxes(count=(1, 4), side=(30, 150), margin=10),
        boxes_share=0.3 / 1.3,
    ),
    "narrow": Random(Strokes(count=(4, 51), width=(5, 15), length=(10, 50))),
    "super_resolve": _super_resolve,
    "alternate_lines": _alternate_lines,
    "half": _half,
    "expand": _expand,
    "brush": Random(Strokes(count=(4, 6), width=(5, 55), length=(10, 110))),  # LaMa's medium masks, without boxes
}
"""Every kind by name: random ones, and functions that clear the known pixels of a hole (H, W) of ones."""
