"""Copying is told from drawing another thing of the same kind, wherever and however large the copy is."""

import pytest
import torch
import torch.nn.functional as F

from ldm.evaluation import copy_paste
from ldm.evaluation.copy_paste import Thing, copied, copy_paste_score, cut_out, resemblance

BOX = torch.tensor([12, 10, 36, 34])


def striped(phase: float, side: int = 24) -> Thing:
    """A red disc with stripes."""
    y, x = torch.meshgrid(torch.arange(side) - side / 2 + 0.5, torch.arange(side) - side / 2 + 0.5, indexing="ij")
    tone = torch.sign(torch.sin(2 * torch.pi * ((2 * x + y) / side + phase)))
    pixels = torch.stack([0.5 + 0.3 * tone, 0.5 * tone - 0.5, torch.full_like(tone, -0.7)])
    return Thing(pixels, (x**2 + y**2 < (side / 2) ** 2)[None].float())


def pasted(thing: Thing, left: int, top: int, side: int, mirrored: bool = False) -> torch.Tensor:
    scene = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)) * 0.2
    pixels, visible = (F.interpolate(t[None], (side, side), mode="bilinear", antialias=True)[0] for t in thing)
    if mirrored:
        pixels, visible = pixels.flip(-1), visible.flip(-1)
    spot = scene[:, top : top + side, left : left + side]
    spot.copy_(spot * (1 - visible) + pixels * visible)
    return scene


@pytest.mark.parametrize("left, top, side", [(12, 10, 24), (14, 9, 24), (15, 14, 17)])
def test_a_copy_is_found_at_every_place_and_size(left, top, side):
    assert resemblance(pasted(striped(0), left, top, side), BOX, striped(0)) > 0.92


def test_brightness_and_contrast_do_not_matter():
    image, thing = pasted(striped(0), 12, 10, 24), striped(0)
    changed = Thing(0.3 * thing.pixels + 0.2, thing.visible)
    assert resemblance(image, BOX, changed) == pytest.approx(resemblance(image, BOX, thing), abs=1e-9)


def test_resemblance_is_the_correlation_of_what_is_visible():
    """One place and one size, by the formula: a thing as large as the whole picture."""
    g = torch.Generator().manual_seed(1)
    image, pixels = torch.rand(2, 3, 9, 9, generator=g, dtype=torch.float64)
    visible = (torch.rand(1, 9, 9, generator=g) > 0.4).double()
    x, y = (t[:, visible[0] > 0] for t in (image, pixels))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    expected = ((x * y).sum() / (x.square().sum() * y.square().sum()).sqrt()).item()
    assert copy_paste._correlation(image, pixels, visible) == pytest.approx(expected, abs=1e-9)
    assert resemblance(image, torch.tensor([0, 0, 9, 9]), Thing(pixels, visible)) >= expected  # smaller may fit better


def test_another_thing_of_the_kind_is_no_copy_of_pixels():
    _, paste = copied(pasted(striped(0), 12, 10, 24), BOX, striped(0), striped(0.3))
    _, other = copied(pasted(striped(0.6), 12, 10, 24), BOX, striped(0), striped(0.3))
    _, swapped = copied(pasted(striped(0.3), 12, 10, 24), BOX, striped(0), striped(0.3))
    assert paste > 0.2 and other < 0.5 * paste and swapped < 0


def test_a_mirrored_copy_has_the_pixels_but_not_the_pose():
    exemplar, other = striped(0), striped(0.3)
    straight, turned = (copied(pasted(striped(0), 12, 10, 24, m), BOX, exemplar, other) for m in (False, True))
    assert straight[0] > 0.2 and turned[0] < -0.2
    assert straight[1] == pytest.approx(turned[1], abs=0.05) and turned[1] > 0.2


def test_the_score_is_in_percent_of_a_paste_and_what_shows_nothing_counts_for_nothing():
    assert copy_paste_score(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.6])) == pytest.approx(50)
    assert copy_paste_score(torch.tensor([0.1, 0.3, 9.0]), torch.tensor([0.2, 0.6, 0.0])) == pytest.approx(50)


def test_a_thing_is_cut_out_of_its_box():
    image = torch.arange(3 * 6 * 8.0).view(3, 6, 8)
    visible = torch.zeros(1, 6, 8)
    visible[:, 2, 3] = 1
    thing = cut_out(image, visible, torch.tensor([2, 1, 5, 6]))
    assert thing.pixels.shape == (3, 5, 3) and torch.equal(thing.pixels[:, 1, 1], image[:, 2, 3])
    assert thing.visible.sum() == thing.visible[0, 1, 1] == 1
