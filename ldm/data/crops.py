"""The boxes and windows that Paint by Example cuts out of a picture (arXiv 2211.13227, section 3).

A box is (x0, y0, x1, y1) in pixels, x1 and y1 exclusive. Random numbers come from a `random.Random`, drawn in the
order of the original code, so the same seed gives the same geometry.
"""

from random import Random

import numpy as np

from ldm.utils.mask import Box

AREA = (0.02, 0.8)  # share of the picture, inclusive: smaller boxes show too little, larger ones leave no context


def padded_box(box: Box, pad: int, width: int, height: int) -> Box:
    """Return the box grown by `pad` on every side, clipped to the picture: what the exemplar shows."""
    x0, y0, x1, y1 = box
    return max(x0 - pad, 0), max(y0 - pad, 0), min(x1 + pad, width), min(y1 + pad, height)


def extended_box(box: Box, width: int, height: int, rng: Random) -> Box:
    """Return the box with each side moved outwards by up to 0.4 of the free space there."""
    x0, y0, x1, y1 = box
    return (
        x0 - rng.randint(0, int(0.4 * x0)),
        y0 - rng.randint(0, int(0.4 * y0)),
        x1 + rng.randint(0, int(0.4 * (width - x1))),
        y1 + rng.randint(0, int(0.4 * (height - y1))),
    )


def square_window(box: Box, width: int, height: int, rng: Random, squash: bool = False) -> Box:
    """Draw a square window that contains the (extended) box.

    Its side is the picture's shorter side, placed at random along the longer one, then shrunk symmetrically by up to
    0.6 of the distance between box and window. A square picture is kept whole.

    Args:
        squash: if the box is longer than the picture's shorter side, so that no such window exists, return the whole
            picture, to be squashed into a square, as in the original. False returns a larger square that extends
            beyond the picture: `cut` pads it.
    """
    if width == height:
        return 0, 0, width, height
    if width < height:
        x0, y0, x1, y1 = box
        top, left, bottom, right = square_window((y0, x0, y1, x1), height, width, rng, squash)
        return left, top, right, bottom

    x0, y0, x1, y1 = box
    first, last = max(x1 - height, 0), min(x0, width - height)
    if squash and last <= first:  # as in the original, also if exactly one window fits
        return 0, 0, width, height
    if last < first:
        side = rng.randint(x1 - x0, width)
        left = rng.randint(max(x1 - side, 0), min(x0, width - side))
        top = -((side - height) // 2)
        return left, top, left + side, top + side
    left = rng.randint(first, last)
    free = min(y0, x0 - left, left + height - x1, height - y1)
    shrink = rng.randint(0, int(0.6 * free))
    return left + shrink, shrink, left + height - shrink, height - shrink


def cut(picture: np.ndarray, window: Box, fill: int = 0) -> np.ndarray:
    """Cut a window out of a picture (H, W, ...), filled with `fill` outside the picture."""
    x0, y0, x1, y1 = window
    height, width = picture.shape[:2]
    inside = picture[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    if inside.shape[:2] == (y1 - y0, x1 - x0):
        return inside
    result = np.full((y1 - y0, x1 - x0, *picture.shape[2:]), fill, picture.dtype)
    top, left = max(-y0, 0), max(-x0, 0)
    result[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return result
