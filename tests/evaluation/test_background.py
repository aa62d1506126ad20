import numpy as np
import pytest
import torch

from ldm.evaluation.background import background_scores, without_hole
from tests.refusals import refused


def pictures(seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def holes():
    holes = torch.zeros(3, 1, 32, 32)
    holes[0, :, 4:20, 8:20] = 1
    holes[1, :, :8] = 1
    holes[2] = 1
    return holes


def ssim_by_numpy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Map (H, W) of one channel in [-1, 1] with a Gaussian window of sigma 1.5 and 11 taps, mirrored at the border."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def blur(x):
        x = np.pad(x, 5, mode="reflect")
        x = np.apply_along_axis(np.convolve, 0, x, taps, "valid")
        return np.apply_along_axis(np.convolve, 1, x, taps, "valid")

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def test_against_numpy(holes):
    edited, scenes = pictures(0), pictures(1)
    scores = background_scores(edited, scenes, holes, lambda a, b: (a - b).abs().mean((1, 2, 3)))
    for k in range(2):
        hole = holes[k, 0].numpy() > 0
        a, b = (x[k].numpy().astype(float) for x in (edited, scenes))
        outside_psnr = 10 * np.log10(4 / ((a - b)[:, ~hole] ** 2).mean())
        assert scores["psnr outside"][k].item() == pytest.approx(outside_psnr, rel=1e-6)
        a[:, hole] = b[:, hole] = -1
        whole = np.mean([ssim_by_numpy(x, y).mean() for x, y in zip(a, b, strict=True)])
        assert scores["ssim"][k].item() == pytest.approx(whole, abs=1e-5)
        assert scores["lpips"][k].item() == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def test_what_is_in_the_hole_does_not_count(holes):
    scenes = pictures(1)
    edited = torch.where(holes > 0, pictures(0), scenes)
    scores = background_scores(edited, scenes, holes, lambda a, b: (a - b).abs().mean((1, 2, 3)))
    assert scores["lpips"].tolist() == [0, 0, 0]
    assert scores["ssim"].tolist() == pytest.approx([1, 1, 1])
    assert scores["psnr outside"][:2].tolist() == [torch.inf] * 2
    assert scores["psnr outside"][2].isnan()  # nothing is outside
    assert "lpips" not in background_scores(edited, scenes, holes)


def test_a_shift_has_a_known_psnr(holes):
    scenes = pictures(1) / 2
    scores = background_scores(scenes + 0.2, scenes, holes)
    assert scores["psnr outside"][:2].tolist() == pytest.approx([20, 20], abs=1e-5)  # 10 log10(4 / 0.04)


def test_the_hole_is_black(holes):
    seen = without_hole(pictures(0), holes)
    assert (seen[holes.expand_as(seen) > 0] == -1).all()
    assert torch.equal(seen[0, :, 20:], pictures(0)[0, :, 20:])


def test_pictures_too_small_for_ssim():
    with refused("9x5", 6):
        background_scores(torch.zeros(1, 3, 5, 9), torch.zeros(1, 3, 5, 9), torch.zeros(1, 1, 5, 9))
