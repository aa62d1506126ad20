"""Training masks: the extended box itself, or a shape whose sides are Bezier curves bulging towards it; and blobs.

Blobs are for evaluation only: they show how a model handles holes of other shapes. All masks are uint8, 255 = repaint,
0 = keep.
"""

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from ldm.utils.mask import Box


def filled_box(box: Box, width: int, height: int) -> np.ndarray:
    """Return a mask (height, width) uint8: 255 inside the box."""
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


def bounds(mask: np.ndarray) -> Box:
    """Return the bounding box of what a mask (H, W) selects; (0, 0, 0, 0) if it selects nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blob_mask(box: Box, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a mask (height, width) uint8: 255 inside a wobbly ellipse around a box, as if drawn by hand.

    Its radius is 0.62 of the box's extent, with 2 to 5 waves per turn: most corners of the box stick out.
    """
    x0, y0, x1, y1 = box
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = sum(rng.uniform(-0.08, 0.08) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    radius = 0.62 * (1 + waves)
    xs, ys = (x0 + x1) / 2 + radius * (x1 - x0) * np.cos(angle), (y0 + y1) / 2 + radius * (y1 - y0) * np.sin(angle)
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([*zip(xs.tolist(), ys.tolist(), strict=True)], fill=255)
    return np.array(mask)


def bezier_mask(box: Box, extended: Box, width: int, height: int, rng: Random, jitter: int) -> np.ndarray:
    """Draw a mask (height, width) uint8: 255 inside the polygon of `bezier_outline`."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon(bezier_outline(box, extended, rng, jitter), fill=255)
    return np.asarray(mask)


def bezier_outline(box: Box, extended: Box, rng: Random, jitter: int) -> list[tuple[float, float]]:
    """Return points on four quadratic Bezier curves from corner to corner of the box (top, right, bottom, left).

    The middle control point of a side lies halfway along it, on the extended box. Each curve has 18 points, moved by up
    to `jitter` pixels along each axis; a point that repeats an x or y of its curve is skipped, as in the original.
    """
    x0, y0, x1, y1 = box
    ex0, ey0, ex1, ey1 = extended
    xm, ym = (x0 + x1) / 2, (y0 + y1) / 2
    curves = (
        ((x0, y0), (xm, ey0), (x1, y0)),
        ((x1, y0), (ex1, ym), (x1, y1)),
        ((x1, y1), (xm, ey1), (x0, y1)),
        ((x0, y1), (ex0, ym), (x0, y0)),
    )
    outline = []
    for nodes in curves:
        xs, ys = set(), set()
        for i in range(1, 19):
            x, y = (_quadratic(*coordinates, i * 0.05) for coordinates in zip(*nodes, strict=True))
            if x in xs or y in ys:
                continue
            xs.add(x)
            ys.add(y)
            outline.append((x + rng.randint(-jitter, jitter), y + rng.randint(-jitter, jitter)))
    return outline


def _quadratic(a: float, b: float, c: float, t: float) -> float:
    """Evaluate the curve at t. The order of operations matters: repeated values are found by exact comparison."""
    s = 1.0 - t
    return (s * a + (2.0 * t) * b) * s + (t * t) * c
