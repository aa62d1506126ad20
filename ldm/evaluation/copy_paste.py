"""Copy scores: how much of an exemplar reappears in an edit, the "copy and paste" that a bottleneck should prevent.

A model that understands what a thing is draws one of its kind; a model that copies draws this very one, facing the
same way (its pose) and with its pattern in the same places (its pixels). Copying shows in what the edit has in common
with the exemplar's thing beyond its similarity to another one: to the mirror image for the pose, or to another thing of
the same class, colour and pattern for the pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (0.7, 0.8, 0.9, 1.0)  # sizes at which a thing is searched for, relative to the largest that fits the box
REACH = 3  # pixels around the box in which it is searched for


class Thing(NamedTuple):
    """A thing cut out of a picture: pixels (3, h, w) in [-1, 1], and (1, h, w), 1 where it is visible."""

    pixels: Tensor
    visible: Tensor


def cut_out(image: Tensor, visible: Tensor, box: Tensor) -> Thing:
    """Cut the thing in a box (x0, y0, x1, y1; x1 and y1 exclusive) out of a picture (3, H, W)."""
    x0, y0, x1, y1 = box.tolist()
    return Thing(image[:, y0:y1, x0:x1], visible[:, y0:y1, x0:x1])


def mirrored(thing: Thing) -> Thing:
    """Return the mirror image of a thing."""
    return Thing(thing.pixels.flip(-1), thing.visible.flip(-1))


def resemblance(image: Tensor, box: Tensor, thing: Thing) -> float:
    """Return the highest normalised cross-correlation, -1 to 1, of a thing with a picture (3, H, W) around a box.

    The maximum is over positions and sizes. Means are removed per channel, so that colour alone does not count. It is 1
    where the picture shows the same pixels at any brightness and contrast.
    """
    height, width = image.shape[-2:]
    x0, y0, x1, y1 = box.tolist()
    extent = y1 - y0, x1 - x0
    window = image[:, max(y0 - REACH, 0) : min(y1 + REACH, height), max(x0 - REACH, 0) : min(x1 + REACH, width)]
    return max(_correlation(window.double(), *candidate) for candidate in _candidates(thing, *extent))


def _candidates(thing: Thing, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the thing at every size, and stretched to the box."""
    h, w = thing.pixels.shape[-2:]
    fit = min(width / w, height / h)
    sizes = {(max(round(scale * fit * h), 2), max(round(scale * fit * w), 2)) for scale in SCALES} | {(height, width)}
    both = torch.cat([thing.pixels, thing.visible])[None].double()
    for size in sorted(sizes):
        sized = F.interpolate(both, size, mode="bilinear", align_corners=False, antialias=True)[0]
        yield sized[:3], sized[3:]


def _correlation(window: Tensor, pixels: Tensor, visible: Tensor) -> float:
    """Return the highest normalised cross-correlation over all positions of a template in a window (3, H, W)."""
    weight = visible / visible.sum()
    pattern = weight * (pixels - (weight * pixels).sum((1, 2), keepdim=True))

    common = F.conv2d(window[None], pattern[None])[0, 0]  # independent of the window's mean: the pattern sums to 0
    mean, square = (F.conv2d(x[:, None], weight[None]) for x in (window, window.square()))
    variance = (square - mean.square()).sum((0, 1)).clamp(min=1e-6)
    own = (pattern * pixels).sum()
    return (common / (variance * own.clamp(min=1e-6)).sqrt()).max().item()


def copied(image: Tensor, box: Tensor, exemplar: Thing, other: Thing) -> tuple[float, float]:
    """Measure how much more a picture resembles the exemplar's thing than others, -2 to 2 each.

    Returns:
        pose: than its mirror image. pixels: in either orientation, than another thing of its kind.
    """
    straight, turned = (resemblance(image, box, thing) for thing in (exemplar, mirrored(exemplar)))
    alike = max(resemblance(image, box, thing) for thing in (other, mirrored(other)))
    return straight - turned, max(straight, turned) - alike


def copy_paste_score(edits: Tensor, pastes: Tensor) -> float:
    """Return one of the measures of `copied` for edits, (N,), in percent of that for pasted exemplars, (N,).

    It is the slope of the least-squares line through 0, so that exemplars indistinguishable from the other thing do not
    count. 0: edits resemble their exemplars like any thing of the kind. 100: the exemplars were pasted.
    """
    edits, pastes = edits.double(), pastes.double()
    return 100 * (edits @ pastes / pastes.square().sum()).item()
