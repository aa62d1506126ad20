"""The ten things of ToyWorld as analytic shapes: silhouette, pattern coordinates, shading and fixed details.

Every shape has its own units with y pointing down; a shape function takes the coordinates of the sub-pixels and returns
which of them are inside, the pattern coordinates (u, v), the light, and the details painted over the pattern. A call
costs about a millisecond, so the results are cached by (class, size).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

SUPERSAMPLING = 3
TURN = 4.4  # one turn around the ring in pattern coordinates: the circumference at mid-band
Grid = np.ndarray  # (H, W) float32

BROWN, DARK, WHITE, BLACK, GLASS, STEEL = (
    np.array(c, np.float32)
    for c in ((116, 74, 44), (70, 44, 34), (252, 252, 250), (28, 26, 34), (206, 232, 246), (205, 208, 214))
)


@dataclass
class Parts:
    """The result of a shape function; all arrays are (H, W) on the sub-pixel grid."""

    inside: Grid  # bool
    u: Grid  # pattern coordinates; the longest side has length 2
    v: Grid
    light: Grid  # factor on the colour, about 0.6 .. 1.2
    details: tuple = ()  # (bool grid, RGB) painted over the pattern, in order


@dataclass
class Stamp:
    """A shape at one size, ready for colouring: `colour = paint * tone + ink`, with premultiplied coverage."""

    inside: np.ndarray  # (h, w) bool
    u: np.ndarray  # (h, w) float32
    v: np.ndarray
    paint: np.ndarray  # (h, w, 1) float32: light where the pattern shows, darkened at the outline, 0 elsewhere
    ink: np.ndarray  # (h, w, 3) float32: details in their own colours, 0 elsewhere


def _disc(x: Grid, y: Grid, cx: float, cy: float, rx: float, ry: float | None = None) -> Grid:
    return ((x - cx) / rx) ** 2 + ((y - cy) / (ry or rx)) ** 2 <= 1


def _box(x: Grid, y: Grid, x0: float, y0: float, x1: float, y1: float, corner: float = 0.0) -> Grid:
    dx = np.maximum(np.abs(x - (x0 + x1) / 2) - ((x1 - x0) / 2 - corner), 0)
    dy = np.maximum(np.abs(y - (y0 + y1) / 2) - ((y1 - y0) / 2 - corner), 0)
    return dx**2 + dy**2 <= corner**2 + 1e-9


def _polygon(x: Grid, y: Grid, *points: tuple[float, float]) -> Grid:
    """Fill a polygon by the even-odd rule: a ray to the right crosses an odd number of edges."""
    inside = np.zeros(x.shape, bool)
    for (xa, ya), (xb, yb) in zip(points, points[1:] + points[:1], strict=True):
        if ya != yb:
            inside ^= ((ya > y) != (yb > y)) & (x < (xb - xa) * (y - ya) / (yb - ya) + xa)
    return inside


def _round_light(position: Grid) -> Grid:
    """Shade an upright cylinder lit from the left; `position` runs from -1 (left edge) to 1 (right edge)."""
    return 1.12 - 0.42 * np.clip((position + 0.35) / 1.35, -0.3, 1) ** 2


def _ball(x: Grid, y: Grid) -> Parts:
    r2 = x**2 + y**2
    depth = np.sqrt(np.clip(1 - r2, 0, 1))
    light = 0.68 + 0.5 * np.clip(-0.45 * x - 0.6 * y + 0.66 * depth, 0, 1)
    gloss = _disc(x, y, -0.36, -0.46, 0.17, 0.13)
    return Parts(
        r2 <= 1, np.arcsin(np.clip(x, -1, 1)) * 0.85, np.arcsin(np.clip(y, -1, 1)) * 0.85, light, ((gloss, WHITE),)
    )


def _cube(x: Grid, y: Grid) -> Parts:
    """Draw an isometric cube: three faces meet at the origin; (s, t) run from 0 to 1 along a face's two edges."""
    a, b = x / 0.87, y
    faces = (
        (a / 2 - b, -a / 2 - b, 1.18),  # top: p = s (0.87, -0.5) + t (-0.87, -0.5)
        (-a, b - a / 2, 0.95),  # left: p = s (-0.87, -0.5) + t (0, 1)
        (a, b + a / 2, 0.7),  # right: p = s (0.87, -0.5) + t (0, 1)
    )
    inside, u, v, light = np.zeros(x.shape, bool), x.copy(), y.copy(), np.ones_like(x)
    for s, t, level in faces:
        face = (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
        inside |= face
        u, v, light = np.where(face, s, u), np.where(face, t, v), np.where(face, level, light)
    return Parts(inside, u, v, light)


def _cone(x: Grid, y: Grid) -> Parts:
    width = np.clip((y + 1) / 1.78, 1e-3, 1) * 0.8
    inside = ((np.abs(x) <= width) & (y >= -1) & (y <= 0.78)) | _disc(x, y, 0, 0.78, 0.8, 0.22)
    return Parts(inside, x, y, _round_light(x / width))


def _star(x: Grid, y: Grid) -> Parts:
    """Draw a star: five points of radius 1 with inner radius 0.55, each split into a lit and a shaded half."""
    radius, turn = np.hypot(x, y), np.arctan2(x, -y) / (2 * np.pi / 5)
    side = turn - np.round(turn)  # -0.5 .. 0.5 within a point
    angle = np.abs(side) * (2 * np.pi / 5)
    # Edge from the tip (1, 0) to the notch 0.55 (cos 36, sin 36), as n . p <= n . tip in the folded frame.
    notch = 0.55 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    nx, ny = notch[1], 1 - notch[0]
    inside = radius * (np.cos(angle) * nx + np.sin(angle) * ny) <= nx
    return Parts(inside, x, y, np.where(side < 0, 1.1, 0.84).astype(np.float32))


def _mug(x: Grid, y: Grid) -> Parts:
    body = (
        _box(x, y, -1, -0.72, 0.42, 0.72) | _disc(x, y, -0.29, -0.72, 0.71, 0.17) | _disc(x, y, -0.29, 0.72, 0.71, 0.17)
    )
    handle = _disc(x, y, 0.42, 0.0, 0.56, 0.5) & ~_disc(x, y, 0.42, 0.0, 0.3, 0.26) & (x > 0.4)
    coffee = _disc(x, y, -0.29, -0.72, 0.56, 0.11)
    return Parts(body | handle, x, y, np.where(body, _round_light((x + 0.29) / 0.71), 0.82), ((coffee, DARK),))


def _house(x: Grid, y: Grid) -> Parts:
    body = _box(x, y, -0.76, -0.2, 0.76, 1)
    roof = _polygon(x, y, (-1, -0.12), (0, -1), (1, -0.12))
    chimney = _box(x, y, 0.4, -0.92, 0.66, -0.4)
    door = _box(x, y, -0.2, 0.42, 0.2, 1)
    window = _disc(x, y, 0, -0.42, 0.19)
    light = np.where(roof, 0.66, np.where(body, 1.08, 0.66))
    return Parts(body | roof | chimney, x, y, light, ((door, DARK), (window, GLASS)))


def _tree(x: Grid, y: Grid) -> Parts:
    crown = (
        _disc(x, y, 0, -0.48, 0.52)
        | _disc(x, y, -0.42, -0.02, 0.43)
        | _disc(x, y, 0.42, -0.02, 0.43)
        | _disc(x, y, 0, 0, 0.42)
    )
    trunk = _polygon(x, y, (-0.13, 0.2), (0.13, 0.2), (0.2, 1), (-0.2, 1))
    light = 0.98 - 0.16 * x - 0.2 * (y + 0.3)
    return Parts(crown | trunk, x, y, light, ((trunk & ~crown, BROWN),))


def _fish(x: Grid, y: Grid) -> Parts:
    body = _disc(x, y, 0.24, 0.02, 0.76, 0.56)
    tail = _polygon(x, y, (-0.3, 0.02), (-1, -0.56), (-0.82, 0.02), (-1, 0.6))
    fin = _polygon(x, y, (-0.2, -0.42), (0.02, -0.78), (0.5, -0.7), (0.46, -0.42))
    eye, pupil = _disc(x, y, 0.66, -0.12, 0.16), _disc(x, y, 0.69, -0.11, 0.085)
    light = np.where(body, 1.06 - 0.28 * y, 0.8)
    return Parts(body | tail | fin, x, y, light, ((eye, WHITE), (pupil, BLACK)))


def _car(x: Grid, y: Grid) -> Parts:
    body = _box(x, y, -1, -0.2, 1, 0.44, corner=0.18)
    cabin = _polygon(x, y, (-0.72, -0.1), (-0.46, -0.66), (0.3, -0.66), (0.66, -0.1))
    rear = _polygon(x, y, (-0.55, -0.2), (-0.36, -0.55), (-0.1, -0.55), (-0.1, -0.2))
    front = _polygon(x, y, (0.02, -0.2), (0.02, -0.55), (0.24, -0.55), (0.48, -0.2))
    tyres = _disc(x, y, -0.54, 0.42, 0.27) | _disc(x, y, 0.54, 0.42, 0.27)
    hubs = _disc(x, y, -0.54, 0.42, 0.12) | _disc(x, y, 0.54, 0.42, 0.12)
    light = 1.08 - 0.3 * np.clip(y, -0.3, 0.5)
    return Parts(body | cabin | tyres, x, y, light, ((rear | front, GLASS), (tyres, BLACK), (hubs, STEEL)))


def _ring(x: Grid, y: Grid) -> Parts:
    """Draw a torus seen from the front; the pattern runs around it, as on a lifebuoy."""
    radius, turn = np.hypot(x, y), np.arctan2(y, x) / (2 * np.pi)
    bulge = (radius - 0.7) / 0.3
    facing = (x * -0.5 + y * -0.8) / np.maximum(radius, 1e-3)
    light = 1.04 - 0.26 * bulge**2 + 0.18 * facing * bulge
    return Parts((radius <= 1) & (radius >= 0.4), turn * TURN, bulge * 0.28, light)


# name -> (shape function, its bounding box x0, y0, x1, y1, size relative to the scene's usual size)
SHAPES: dict[str, tuple[Callable[[Grid, Grid], Parts], tuple[float, float, float, float], float]] = {
    "ball": (_ball, (-1, -1, 1, 1), 0.92),
    "cube": (_cube, (-0.87, -1, 0.87, 1), 1.0),
    "cone": (_cone, (-0.8, -1, 0.8, 1), 1.08),
    "star": (_star, (-0.951, -1, 0.951, 0.809), 1.04),
    "mug": (_mug, (-1, -0.89, 0.98, 0.89), 1.0),
    "house": (_house, (-1, -1, 1, 1), 1.0),
    "tree": (_tree, (-0.85, -1, 0.85, 1), 1.1),
    "fish": (_fish, (-1, -0.78, 1, 0.6), 1.12),
    "car": (_car, (-1, -0.66, 1, 0.69), 1.14),
    "ring": (_ring, (-1, -1, 1, 1), 0.98),
}


@lru_cache(maxsize=512)
def stamp(name: str, side: int, outline: int) -> Stamp:
    """Return the shape `name`, its longest side `side` sub-pixels long, with an outline `outline` sub-pixels wide."""
    function, (x0, y0, x1, y1), _ = SHAPES[name]
    pitch = max(x1 - x0, y1 - y0) / side
    columns, rows = round((x1 - x0) / pitch), round((y1 - y0) / pitch)
    x = (x0 + (np.arange(columns, dtype=np.float32) + 0.5) * (x1 - x0) / columns)[None].repeat(rows, 0)
    y = (y0 + (np.arange(rows, dtype=np.float32) + 0.5) * (y1 - y0) / rows)[:, None].repeat(columns, 1)
    parts = function(x, y)

    padded = Image.fromarray(np.pad(parts.inside, outline).astype(np.uint8) * 255)
    core = np.asarray(padded.filter(ImageFilter.MinFilter(2 * outline + 1)))[outline:-outline, outline:-outline] > 0
    paint = np.where(core, parts.light, 0.36).astype(np.float32)[..., None]
    ink = np.zeros((rows, columns, 3), np.float32)
    for where, colour in parts.details:
        paint[where] = 0
        ink[where] = colour
    paint[~parts.inside], ink[~parts.inside] = 0, 0
    return Stamp(parts.inside, parts.u.astype(np.float32), parts.v.astype(np.float32), paint, ink)
