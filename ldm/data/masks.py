"""Training masks: the extended box itself, or a shape whose sides are Bezier curves bulging towards it; and blobs.

Blobs are of no training: they measure what a model makes of holes of other shapes. All masks are uint8, 255 = repaint,
0 = keep.
"""

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from ldm.data.crops import Box


def box_mask(box: Box, width: int, height: int) -> np.ndarray:
    """(height, width) uint8: 255 within the box."""
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), np.uint8)
    mask[y0:y1, x0:x1] = 255
    return mask


def bounds(mask: np.ndarray) -> Box:
    """The smallest box around what a mask (H, W) selects; empty (all zeros) where it selects nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blob_mask(box: Box, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) uint8: 255 within an uneven ellipse around a box, as a hand draws it.

    Its radius, as a share of the box's extent, is 0.62 with waves of 2 to 5 to the round: most corners stick out.
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
    """(height, width) uint8: 255 within the polygon of `bezier_outline`."""
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon(bezier_outline(box, extended, rng, jitter), fill=255)
    return np.asarray(mask)


def bezier_outline(box: Box, extended: Box, rng: Random, jitter: int) -> list[tuple[float, float]]:
    """Four quadratic Bezier curves from corner to corner of the box (top, right, bottom, left).

    The middle control point of a side lies at half its length, on the extended box. 18 points a curve are moved by up
    to `jitter` pixels each way; a point that repeats an x or a y of its curve is left out, as in the original.
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
    """The curve's value at t. The order of the operations matters: repeated values are found by exact comparison."""
    s = 1.0 - t
    return (s * a + (2.0 * t) * b) * s + (t * t) * c
