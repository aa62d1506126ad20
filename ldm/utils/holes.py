"""The masks on which RePaint is measured (Lugmayr et al., 2201.09865, section 5), at any size, from a seed.

`wide` and `narrow` are the thick and thin masks of LaMa (Suvorov et al., 2109.07161): brush strokes that turn at
random, and for `wide` also boxes. LaMa states lengths for pictures of 256 x 256; here they are scaled to the geometric
mean of the sides, so that a seed gives the same drawing at every size.
"""

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


STROKES = {
    "wide": Strokes(count=(1, 6), width=(5, 105), length=(10, 210)),
    "narrow": Strokes(count=(4, 51), width=(5, 15), length=(10, 50)),
    "brush": Strokes(count=(4, 6), width=(5, 55), length=(10, 110)),  # LaMa's medium masks without their boxes
}
BOXES = {"wide": (0.3 / 1.3, Boxes(count=(1, 4), side=(30, 150), margin=10))}  # share of masks with boxes, and boxes
ALIASES = {
    "thick": "wide",
    "thin": "narrow",
    "nn2": "super_resolve",
    "ev2li": "alternate_lines",
    "genhalf": "half",
    "ex64": "expand",
}
"""The names of the paper's masks in the original's files."""
PAPER = tuple(ALIASES.values())
"""The paper's masks, in its tables' order."""
HOLES = (*PAPER, "brush")


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
    hole = _drawn(kind, size, seed) if kind in STROKES else _regular(kind, size)
    return torch.from_numpy(hole)[None, None].float()


def _regular(kind: str, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    hole = np.ones((height, width), bool)
    if kind == "super_resolve":
        hole[::2, ::2] = False
    elif kind == "alternate_lines":
        hole[::2] = False
    elif kind == "half":
        hole[:, : width // 2] = False
    else:
        w, h = round(width / 4), round(height / 4)
        top, left = (height - h) // 2, (width - w) // 2
        hole[top : top + h, left : left + w] = False
    return hole


def _drawn(kind: str, size: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(key_seed("hole", kind, seed))
    share, boxes = BOXES.get(kind, (0.0, None))
    while True:
        if boxes and rng.random() < share:
            hole = _boxes(boxes, size, rng)
        else:
            hole = _strokes(STROKES[kind], size, rng)
        if hole.mean() <= MAX_SHARE:
            return hole


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
