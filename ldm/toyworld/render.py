"""ToyWorld: small drawn scenes with known boxes, masks, colours, patterns and captions.

A scene is one of five backgrounds with one to three things standing in it, and a function of one integer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ldm.toyworld.backgrounds import BACKGROUNDS, paint_background, shade
from ldm.toyworld.shapes import SHAPES, SUPERSAMPLING, TURN, stamp

CLASSES = tuple(SHAPES)
COLOURS = {
    "red": (222, 42, 44),
    "orange": (246, 134, 22),
    "yellow": (250, 216, 44),
    "green": (44, 160, 66),
    "turquoise": (38, 196, 196),
    "blue": (44, 88, 214),
    "purple": (132, 58, 176),
    "pink": (246, 132, 186),
}
PATTERNS = ("plain", "striped", "dotted", "checkered")
_PLACES = {name: words for name, (_, words) in BACKGROUNDS.items()}
VOCABULARY = sorted({"a", "an", "and", *CLASSES, *COLOURS, *PATTERNS[1:], *" ".join(_PLACES.values()).split()})


@dataclass(frozen=True)
class Object:
    """One thing in a scene. `box` = (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, is the bounding box of `mask`."""

    cls: str
    colour: str
    pattern: str
    box: tuple[int, int, int, int]
    mask: np.ndarray  # (H, W) bool: pixels in which the thing is visible

    @property
    def caption(self) -> str:
        return object_caption(self)


@dataclass(frozen=True)
class Scene:
    """A drawn scene and what is known about it."""

    image: np.ndarray  # (H, W, 3) uint8
    objects: list[Object]  # from left to right
    caption: str
    background: str


def object_caption(thing: Object, brief: bool = False) -> str:
    """Describe a thing: 'a red striped ball', 'an orange mug' (plain patterns are not named); briefly 'a ball'."""
    words = [thing.colour, *([] if thing.pattern == "plain" else [thing.pattern]), thing.cls][-1 if brief else 0 :]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def scene_caption(things: Sequence[Object], background: str | None, brief: bool = False) -> str:
    """Describe a scene without punctuation, in words of VOCABULARY: 'a red striped ball and a blue mug on a meadow'.

    Without a background, the place is not named; briefly, things are named by their class alone.
    """
    named = " and ".join(object_caption(thing, brief) for thing in things)
    return named if background is None else f"{named} {_PLACES[background]}"


def scene_id(seed: int, split: str, index: int) -> int:
    """Return the 64-bit number of scene `index` of a split; every seed and split has its own scenes."""
    digest = hashlib.blake2b(f"toyworld {seed} {split} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _second_tone(pattern: str, u: np.ndarray, v: np.ndarray, period: float, phase: np.ndarray) -> np.ndarray:
    """Select the pixels of the pattern's second tone; (u, v) and period in the shape's units, phase in periods."""
    a, b = u / period + phase[0], v / period + phase[1]
    if pattern == "striped":
        return (a + b) % 1 < 0.5
    if pattern == "checkered":
        return (np.floor(2 * a) + np.floor(2 * b)) % 2 == 0
    row = np.floor(b)
    return ((a + 0.5 * (row % 2)) % 1 - 0.5) ** 2 + (b - row - 0.5) ** 2 < 0.33**2


def _draw(
    name: str, colour: str, pattern: str, side: float, corner: Sequence[int], unit: float, rng: np.random.Generator
):
    """Draw a thing at sub-pixel `corner`: premultiplied RGB (h, w, 3), coverage (h, w), left and top in pixels."""
    s = SUPERSAMPLING
    shape = stamp(name, round(side * s), max(1, round(0.9 * s * unit)))
    tone = np.asarray(COLOURS[colour], np.float32) + rng.uniform(-8, 8, 3).astype(np.float32)
    phase, flip = rng.random(2), rng.random() < 0.5
    if pattern == "plain":
        coloured = shape.paint * tone + shape.ink
    else:
        other = shade(tone, -0.56) if pattern == "checkered" else shade(tone, 0.88)
        period = 2 * max(0.31, 8.5 * unit / side) * (1.12 if name == "cube" else 1.0)
        if name == "ring":  # a whole number of periods around it, the row of dots in the middle of the band
            period, phase[1] = TURN / round(TURN / period), 0.5
        second = _second_tone(pattern, shape.u, shape.v, period, phase)
        coloured = shape.paint * np.where(second[..., None], other, tone) + shape.ink
    rgba = np.concatenate([np.minimum(coloured, 255), shape.inside[..., None]], -1)
    if flip:
        rgba = rgba[:, ::-1]
    left, top = corner[0] % s, corner[1] % s
    h, w = (-(-(top + rgba.shape[0]) // s) * s, -(-(left + rgba.shape[1]) // s) * s)
    tile = np.zeros((h, w, 4), np.float32)
    tile[top : top + rgba.shape[0], left : left + rgba.shape[1]] = rgba
    tile = tile.reshape(h // s, s, w // s, s, 4).mean((1, 3))
    return tile[..., :3], tile[..., 3], corner[0] // s, corner[1] // s


def render_scene(generator: np.random.Generator | int, size: int = 64) -> Scene:
    """Draw one scene of `size` x `size` pixels; an integer seed always draws the same scene."""
    rng = generator if isinstance(generator, np.random.Generator) else np.random.default_rng(generator)
    unit = size / 64
    background = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    picture, horizon = paint_background(background, size, rng)

    wanted = 1 + int(rng.integers(3))
    places = _places(wanted, horizon, size, rng)
    line = np.arange(size, dtype=np.float32) + 0.5
    layers = []
    for name, side, (x0, y0, x1, y1) in places:
        colour, pattern = list(COLOURS)[int(rng.integers(len(COLOURS)))], PATTERNS[int(rng.integers(len(PATTERNS)))]
        dx, dy = (line - (x0 + x1) / 2) / (0.56 * (x1 - x0)), (line - y1 + 0.8 * unit) / (2.6 * unit)
        picture = picture * (1 - 0.36 * np.exp(-((dx[None] ** 2 + dy[:, None] ** 2) ** 2)))[..., None]
        corner = (int(x0 * SUPERSAMPLING), int(y0 * SUPERSAMPLING))
        rgb, cover, left, top = _draw(name, colour, pattern, side, corner, unit, rng)
        where = (slice(top, top + cover.shape[0]), slice(left, left + cover.shape[1]))
        picture[where] = picture[where] * (1 - cover[..., None]) + rgb
        for *_, seen in layers:
            seen[where] *= 1 - cover
        seen = np.zeros((size, size), np.float32)
        seen[where] = cover
        layers.append((name, colour, pattern, seen))

    objects = []
    for name, colour, pattern, seen in layers:
        mask = seen > 0
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        objects.append(Object(name, colour, pattern, box, mask))
    objects.sort(key=lambda thing: thing.box[0] + thing.box[2])
    image = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return Scene(image, objects, scene_caption(objects, background), background)


def _places(count: int, horizon: float, size: int, rng: np.random.Generator):
    """Place up to `count` (class, longest side, box) on the ground with little overlap, the farthest first."""
    unit, margin = size / 64, 1.0
    sides = {1: (28, 38), 2: (24, 31), 3: (22, 26)}[count]
    places: list[tuple[str, float, tuple[float, float, float, float]]] = []
    for _ in range(20 * count):
        if len(places) == count:
            break
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        _, (x0, y0, x1, y1), scale = SHAPES[name]
        side = int(rng.integers(sides[0], sides[1] + 1)) * scale * unit
        width, height = (extent * side / max(x1 - x0, y1 - y0) for extent in (x1 - x0, y1 - y0))
        left = rng.uniform(margin * unit, size - margin * unit - width)
        bottom = rng.uniform(max(horizon * size + 5 * unit, height + margin * unit), size - 2 * unit)
        box = (left, bottom - height, left + width, bottom)
        if all(_overlap(box, other) < 0.06 for *_, other in places):
            places.append((name, side, box))
    return sorted(places, key=lambda place: place[2][3])


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the common area of two boxes as a fraction of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller


def labels(thing: Object) -> dict[str, int]:
    """Return the right answers of the judge's heads."""
    return {
        "class": CLASSES.index(thing.cls),
        "colour": list(COLOURS).index(thing.colour),
        "pattern": PATTERNS.index(thing.pattern),
    }
