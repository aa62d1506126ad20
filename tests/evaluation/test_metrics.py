import math

import pytest
import torch

from ldm.evaluation.metrics import iou, mean, pooled_psnr, psnr


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


def test_the_standard_error_of_answers_is_that_of_a_proportion():
    share, error = mean(torch.tensor([True] * 30 + [False] * 10))
    assert share == pytest.approx(0.75)
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 40))


def test_the_standard_error_of_figures():
    value, error = mean(torch.tensor([1.0, 3.0, 1.0, 3.0]))
    assert (value, error) == pytest.approx((2, 0.5))


def test_intersection_over_union_of_masks():
    a, b = torch.zeros(4, 1, 4, 4), torch.zeros(4, 1, 4, 4)
    a[0, :, :2], b[0, :, 1:] = 1, 0.3  # whatever is not 0 is selected
    a[1], b[1] = 1, 1
    a[2, :, 0, 0] = 1
    assert iou(a, b).tolist() == pytest.approx([1 / 4, 1, 0, 1])
