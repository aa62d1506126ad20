"""Exemplar augmentation of Paint by Example: what keeps the model from copying the exemplar back into the hole.

The original's transforms, with the defaults of the albumentations release it pins (0.4.3); newer releases kept the
names but made the elastic transform a no-op. Lengths hold at 224 x 224 pixels and scale with the exemplar's size.
"""

import math
from functools import lru_cache
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION = 20.0  # degrees
AFFINE_JITTER = 50.0  # pixels at 224
ELASTIC_ALPHA, ELASTIC_SIGMA = 1.0, 50.0  # pixels at 224
REFERENCE_SIZE = 224


def augment(image: Tensor, rng: Random) -> Tensor:
    """Flip (p .5), rotate by up to 20 degrees (p .5), warp elastically with affine jitter (p .3), box-blur (p .3).

    Rotation and elastic transform are one resampling. (3, S, S) float in and out, borders mirrored.
    """
    size = image.shape[-1]
    if rng.random() < 0.5:
        image = image.flip(-1)
    rotate, blur, elastic = rng.random() < 0.5, rng.random() < 0.3, rng.random() < 0.3
    matrix, displacement = np.eye(3), None
    if rotate:
        matrix = rotation(rng.uniform(-ROTATION, ROTATION), size)
    if elastic:
        matrix = affine_jitter(size, rng) @ matrix
        displacement = elastic_displacement(size, rng)
    if rotate or elastic:
        image = warp(image, matrix, displacement)
    if blur:
        largest = max(3, int(7 * size / REFERENCE_SIZE) | 1)
        image = box_blur(image, rng.randrange(3, largest + 1, 2))
    return image


def rotation(degrees: float, size: int) -> np.ndarray:
    """Return the 3x3 matrix that turns pixel positions (x, y, 1) counter-clockwise about the picture's centre."""
    cos, sin, c = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), size / 2
    return np.array([[cos, sin, (1 - cos) * c - sin * c], [-sin, cos, sin * c + (1 - cos) * c], [0, 0, 1]])


def affine_jitter(size: int, rng: Random) -> np.ndarray:
    """Return the 3x3 matrix that moves three corners of the central square (2/3 of the side) by U(-50, 50) pixels."""
    centre, reach, jitter = size // 2, size // 3, AFFINE_JITTER * size / REFERENCE_SIZE
    before = np.array([[1, 1], [1, -1], [-1, -1]]) * reach + centre
    after = before + np.array([[rng.uniform(-jitter, jitter) for _ in range(2)] for _ in range(3)])
    ones = np.ones((3, 1))
    return np.linalg.solve(np.hstack([before, ones]), np.hstack([after, ones])).T


def elastic_displacement(size: int, rng: Random) -> np.ndarray:
    """Draw displacements (x, y) in pixels, (2, size, size): alpha times uniform noise in [-1, 1], blurred by sigma.

    With the original's alpha of 1 and sigma of 50 they stay below 0.05 pixels: the affine jitter does all the work.
    """
    scale = size / REFERENCE_SIZE
    noise = np.random.default_rng(rng.getrandbits(64)).random((2, size, size), np.float32) * 2 - 1
    expand, project = _gaussian(size, ELASTIC_SIGMA * scale)
    # Coarser pixels average fewer draws, which raises the field's deviation by 1 / scale: scale**2 compensates.
    return expand @ (project @ noise @ project.T) @ expand.T * np.float32(ELASTIC_ALPHA * scale**2)


@lru_cache(maxsize=8)
def _gaussian(size: int, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Factor a 1-D Gaussian filter, cut at 4 sigma, borders mirrored (edge repeated), into two low-rank matrices.

    (size, rank) and (rank, size) float32. A wide filter has few degrees of freedom (7 at 224 pixels), which makes it
    cheap; singular values below 3e-5 of the largest are dropped: the field's error is 0.1% of its deviation.
    """
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    source = (np.arange(size)[:, None] + np.arange(-radius, radius + 1)) % (2 * size)
    source = np.minimum(source, 2 * size - 1 - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None].repeat(2 * radius + 1, 1), source), weights / weights.sum())
    left, strength, right = np.linalg.svd(matrix)
    rank = int((strength > 3e-5 * strength[0]).sum())
    return (left[:, :rank] * strength[:rank]).astype(np.float32), right[:rank].astype(np.float32)


def warp(image: Tensor, matrix: np.ndarray, displacement: np.ndarray | None = None) -> Tensor:
    """Move the picture's points by `matrix`: output(p) = image(matrix^-1 (p + displacement(p))).

    Bilinear; borders mirrored. `image` is (3, S, S), points are (x, y) in pixels.
    """
    size = image.shape[-1]
    line, inverse = np.arange(size), np.linalg.inv(matrix)[:2]
    grid = np.empty((size, size, 2), np.float32)
    for axis, (a, b, c) in enumerate(inverse):
        grid[..., axis] = (a * line).astype(np.float32) + (b * line + c).astype(np.float32)[:, None]
        if displacement is not None:
            grid[..., axis] += np.float32(a) * displacement[0] + np.float32(b) * displacement[1]
    grid = torch.from_numpy(grid).mul_(2 / (size - 1)).sub_(1)
    # align_corners=True with reflection mirrors about the centres of the border pixels ("reflect 101").
    return F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="reflection", align_corners=True)[0]


def box_blur(image: Tensor, kernel: int) -> Tensor:
    """Average over kernel x kernel pixels (kernel odd), borders mirrored."""
    size = image.shape[-1]
    padded = F.pad(image[None], (kernel // 2,) * 4, mode="reflect")[0]
    rows = sum(padded[:, k : k + size] for k in range(kernel))  # one axis at a time: far faster than pooling
    return sum(rows[..., k : k + size] for k in range(kernel)) / kernel**2
