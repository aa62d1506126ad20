import math

import pytest
import torch

from ldm.evaluation.metrics import iou, mean, pooled_psnr, psnr, ssim


def test_psnr_of_known_differences():
    a = torch.zeros(3, 3, 8, 8)
    b = torch.stack([torch.full((3, 8, 8), d) for d in (0.2, 2.0, 0.0)])  # of a range of 2: 1/10, 1 and nothing
    assert psnr(a, b)[:2].tolist() == pytest.approx([20, 0], abs=1e-5)
    assert psnr(a, b)[2] == math.inf


def test_psnr_counts_only_where_it_is_told_to():
    a, b, where = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4)
    b[..., 0] = 1.5
    b[..., 1:] = 0.02
    where[..., 0] = 0
    assert psnr(a, b, where).tolist() == pytest.approx([40, 40], abs=1e-4)
    assert psnr(a, b)[0] < 10


def test_pictures_together_have_the_mean_of_their_squared_differences():
    a, b = torch.zeros(2, 3, 8, 8), torch.stack([torch.full((3, 8, 8), d) for d in (0.2, 0.002)])
    each = psnr(a, b)
    assert each.tolist() == pytest.approx([20, 60], abs=1e-4)
    both = psnr(a.view(1, 6, 8, 8), b.view(1, 6, 8, 8)).item()
    assert pooled_psnr(each) == pytest.approx(both) == pytest.approx(23.01, abs=0.01)


def test_ssim_of_flat_pictures_is_its_luminance_term():
    """(2 a b + c1) / (a^2 + b^2 + c1), c1 = (0.01 * 2)^2: nothing varies."""
    levels = torch.tensor([[0.5, 0.5], [0.5, 0.1], [0.5, -0.5]]).double()
    a, b = (column.view(3, 1, 1, 1).expand(3, 3, 16, 16) for column in levels.unbind(1))
    c1 = 0.02**2
    assert ssim(a, b).tolist() == pytest.approx([(2 * x * y + c1) / (x * x + y * y + c1) for x, y in levels.tolist()])


def test_ssim_against_its_definition():
    """A Gaussian window of sigma 1.5 over 11 x 11 pixels, at one pixel of one channel."""
    a, b = 2 * torch.rand(2, 1, 1, 24, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    where = torch.zeros(1, 1, 24, 24)
    where[..., 9, 14] = 1
    line = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    weight = torch.outer(line, line) / line.sum() ** 2
    x, y = (picture[0, 0, 4:15, 9:20] for picture in (a, b))
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy, vxy = (
        (weight * (p - mp) * (q - mq)).sum() for p, mp, q, mq in ((x, mx, x, mx), (y, my, y, my), (x, mx, y, my))
    )
    c1, c2 = 0.02**2, 0.06**2
    expected = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(a, b, where).item() == pytest.approx(expected.item(), abs=1e-7)


def test_ssim_counts_only_where_it_is_told_to():
    a = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    b, where = a.clone(), torch.ones(2, 1, 32, 32)
    b[..., :8] = -b[..., :8]
    where[..., :16] = 0  # beyond the window's reach
    assert ssim(a, b, where).tolist() == pytest.approx([1, 1])
    assert ssim(a, b).max() < 0.9 and ssim(a, b, 1 - where).max() < ssim(a, b).min()
    assert ssim(a, b, torch.zeros(2, 1, 32, 32)).isnan().all()


def test_the_standard_error_of_answers_is_that_of_a_proportion():
    share, error = mean(torch.tensor([True] * 30 + [False] * 10))
    assert share == pytest.approx(0.75)
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 40))


def test_the_standard_error_of_figures():
    value, error = mean(torch.tensor([1.0, 3.0, 1.0, 3.0]))
    assert (value, error) == pytest.approx((2, (4 / 3 / 4) ** 0.5))  # the variance of 4 figures, estimated from 3
    assert mean(torch.tensor([True, False, True, True])) == pytest.approx((0.75, (0.75 * 0.25 / 4) ** 0.5))


def test_intersection_over_union_of_masks():
    a, b = torch.zeros(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)
    a[0, :, :2], b[0, :, 1:] = 1, 0.3  # whatever is not 0 is selected
    a[1], b[1] = 1, 1
    a[2, :, 0, 0] = 1
    assert iou(a, b).tolist() == pytest.approx([1 / 4, 1, 0, 1])
