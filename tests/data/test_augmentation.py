"""Exemplar augmentation does what it says, measured against closed forms and direct computations."""

from random import Random

import numpy as np
import pytest
import torch

from ldm.data import augmentation
from ldm.data.augmentation import affine_jitter, augment, box_blur, elastic_displacement, rotation, warp


def ramps(size: int) -> torch.Tensor:
    """A picture whose channels are x, y and 1: after a warp it shows where each point came from."""
    line = torch.arange(size, dtype=torch.float32)
    return torch.stack([line[None].repeat(size, 1), line[:, None].repeat(1, size), torch.ones(size, size)])


@pytest.mark.parametrize("size", [224, 64])
def test_affine_jitter_displaces_as_three_jittered_corners_do(size):
    """At p: the barycentric mean of the corners' jitters, so the variance is (50 s)^2 / 3 * sum of squared weights."""
    rng, scale = Random(0), size / 224
    centre, reach = size // 2, size // 3
    corners = np.array([[centre + reach] * 2, [centre + reach, centre - reach], [centre - reach] * 2], float)
    points = np.array([[centre, centre], [0, 0], [size - 1, 0], [0, size - 1], *corners], float)
    weights = np.linalg.solve(np.vstack([corners.T, np.ones(3)]), np.vstack([points.T, np.ones(len(points))])).T
    expected = (50 * scale) ** 2 / 3 * (weights**2).sum(1)
    homogeneous = np.hstack([points, np.ones((len(points), 1))])
    moved = np.array([(affine_jitter(size, rng) @ homogeneous.T).T[:, :2] - points for _ in range(4000)])
    assert np.abs(moved.mean(0)).max() < 0.08 * np.sqrt(expected.max())
    np.testing.assert_allclose(moved.var(0), expected[:, None].repeat(2, 1), rtol=0.08)
    assert np.abs(moved[:, 4:]).max() <= 50 * scale  # the corners themselves


def test_elastic_displacement_is_smoothed_noise(monkeypatch):
    """Against a direct convolution of the same noise, with a sigma at which mirroring and cutting matter."""
    monkeypatch.setattr(augmentation, "ELASTIC_SIGMA", 12.0)
    monkeypatch.setattr(augmentation, "ELASTIC_ALPHA", 3.0)
    size, scale = 56, 56 / 224
    field = elastic_displacement(size, Random(9))
    noise = np.random.default_rng(Random(9).getrandbits(64)).random((2, size, size), np.float32) * 2 - 1
    sigma = 12.0 * scale
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    expected = np.pad(noise, ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    for axis in (1, 2):
        expected = np.apply_along_axis(np.convolve, axis, expected, kernel, mode="valid")
    expected *= 3.0 * scale**2
    np.testing.assert_allclose(field, expected, atol=1e-3 * expected.std())


def test_the_original_elastic_field_is_next_to_nothing():
    """Deviation of U(-1, 1) noise under a Gaussian: sqrt(1/3) / (2 sqrt(pi) sigma), here 0.003 pixels at 224."""
    fields = np.array([elastic_displacement(224, Random(seed)) for seed in range(30)])
    inner = fields[:, :, 100:124, 100:124]
    np.testing.assert_allclose(inner.std(), np.sqrt(1 / 3) / (2 * np.sqrt(np.pi) * 50), rtol=0.3)
    assert np.abs(fields).max() < 0.05
    small = np.array([elastic_displacement(64, Random(seed)) for seed in range(200)])
    np.testing.assert_allclose(small.std() / fields.std(), 64 / 224, rtol=0.2)


def test_warp_shows_each_point_where_the_matrix_moves_it():
    size = 40
    matrix = affine_jitter(size, Random(1))
    displacement = np.random.default_rng(0).uniform(-1, 1, (2, size, size))
    warped = warp(ramps(size), matrix, displacement).numpy()
    line = np.arange(size)
    points = np.stack(np.broadcast_arrays(line[None, :], line[:, None], 1.0)) + np.pad(
        displacement, ((0, 1), (0, 0), (0, 0))
    )
    source = np.tensordot(np.linalg.inv(matrix), points, 1)
    inside = ((source[:2] > 0) & (source[:2] < size - 1)).all(0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(warped[:2, inside], source[:2, inside], atol=2e-4)
    # mirrored borders: never a constant filling, and reflected about the border pixel
    np.testing.assert_allclose(warped[2], 1, atol=1e-5)
    shifted = warp(ramps(8), np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 1]]))
    np.testing.assert_allclose(shifted[0, 0].numpy(), [3, 2, 1, 0, 1, 2, 3, 4], atol=1e-5)


def test_rotation_is_counter_clockwise_about_the_centre():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = warp(image, rotation(90, 16))
    # the centre (8, 8) is a pixel's position here, so a quarter turn moves the picture by one row
    torch.testing.assert_close(turned[:, 1:], torch.rot90(image, 1, (1, 2))[:, :-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_box_blur_is_the_mean_with_mirrored_borders(kernel):
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    half = kernel // 2
    padded = np.pad(image.numpy(), ((0, 0), (half, half), (half, half)), mode="reflect")
    expected = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2)).mean((-1, -2))
    np.testing.assert_allclose(box_blur(image, kernel).numpy(), expected, atol=1e-6)


def test_each_transform_is_applied_as_often_as_it_should_be(monkeypatch):
    calls = {"warp": 0, "elastic": 0, "blur": [], "angles": []}
    image, rng, n = torch.rand(3, 224, 224), Random(0), 2000

    def count_warp(image, matrix, displacement):
        calls["warp"] += 1
        calls["elastic"] += displacement is not None
        return image

    def keep_angle(degrees, size):
        calls["angles"].append(degrees)
        return np.eye(3)

    monkeypatch.setattr(augmentation, "warp", count_warp)
    monkeypatch.setattr(augmentation, "rotation", keep_angle)
    monkeypatch.setattr(augmentation, "elastic_displacement", lambda size, rng: np.zeros((2, 1, 1)))
    monkeypatch.setattr(augmentation, "box_blur", lambda image, kernel: calls["blur"].append(kernel) or image)
    flipped = sum(not torch.equal(augment(image, rng), image) for _ in range(n))
    spread = 4 * 0.5 * n**0.5
    assert abs(flipped - 0.5 * n) < spread
    assert abs(len(calls["angles"]) - 0.5 * n) < spread
    assert abs(calls["elastic"] - 0.3 * n) < spread
    assert abs(calls["warp"] - (1 - 0.5 * 0.7) * n) < spread
    assert abs(len(calls["blur"]) - 0.3 * n) < spread and set(calls["blur"]) == {3, 5, 7}
    assert -20 <= min(calls["angles"]) < -19 and 19 < max(calls["angles"]) <= 20


def test_small_exemplars_are_augmented_in_proportion():
    rng, image = Random(3), ramps(64) / 64
    outputs = [augment(image, rng) for _ in range(200)]
    assert all(o.shape == (3, 64, 64) and torch.isfinite(o).all() for o in outputs)
    unchanged = np.mean([torch.equal(o, image) or torch.equal(o, image.flip(-1)) for o in outputs])
    assert 0.15 < unchanged < 0.36  # (1 - .5) (1 - .3) (1 - .3) = .245


POINTS = np.array([(x, y) for y in (0.15, 0.5, 0.8) for x in (0.2, 0.5, 0.9)])  # shares of the picture's side


def mean_shift_by_hand(size: int, draws: int) -> np.ndarray:
    """Mean |dy| at each point if three corners move by U(-50, 50) pixels at 224, borders mirrored."""
    rng, last = np.random.default_rng(0), size - 1
    centre, reach, jitter = size // 2, size // 3, 50 * size / 224
    corners = np.array(
        [[centre + reach, centre + reach], [centre + reach, centre - reach], [centre - reach] * 2], float
    )
    places = np.round(POINTS * last)
    shifts = []
    for _ in range(draws):
        moved = corners + rng.uniform(-jitter, jitter, (3, 2))
        edges, moved_edges = corners[1:] - corners[0], moved[1:] - moved[0]
        back = np.linalg.solve(moved_edges, edges)  # row vectors: (p - moved corner) @ back + corner is p's source
        source = ((places - moved[0]) @ back + corners[0])[:, 1] % (2 * last)
        shifts.append(np.abs(np.minimum(source, 2 * last - source) - places[:, 1]))
    return np.mean(shifts, 0)


def mean_shift_of_augment(size: int, draws: int) -> np.ndarray:
    """The same, read from pictures whose second channel is y, over those that `augment` changed."""
    rng, picture = Random(1), ramps(size)
    x, y = np.round(POINTS * (size - 1)).astype(int).T
    outputs = (augment(picture, rng)[1].numpy() for _ in range(draws))  # y, which a flip leaves alone
    return np.mean([np.abs(o[y, x] - y) for o in outputs if not np.array_equal(o, picture[1])], 0)


def test_exemplars_are_displaced_as_far_as_the_original_displaced_them(monkeypatch):
    """Without the affine jitter, as by a plain use of today's albumentations, they would hardly move at all."""
    size = 56
    monkeypatch.setattr(augmentation, "rotation", lambda degrees, size: np.eye(3))
    monkeypatch.setattr(augmentation, "box_blur", lambda image, kernel: image)
    warped = augmentation.warp
    monkeypatch.setattr(augmentation, "warp", lambda im, m, d=None: im if d is None else warped(im, m, d))
    expected = mean_shift_by_hand(size, 8000)
    np.testing.assert_allclose(mean_shift_of_augment(size, 6000), expected, rtol=0.1)
    assert 4 < expected.min() < expected.max() < 10  # pixels of 56: 16 and more of 224
    monkeypatch.setattr(augmentation, "affine_jitter", lambda size, rng: np.eye(3))
    naive = mean_shift_of_augment(size, 400)
    assert (naive < 0.02 * expected).all()
