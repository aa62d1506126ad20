import sys

import numpy as np
import pytest
import torch

from ldm.editors.repaint import RePaint
from ldm.studies import hole_filling
from ldm.studies.hole_filling import CLASSICAL, PSNR, SSIM, advantage, difference, fill, fill_classically, measure, won
from ldm.toyworld.scenes import HoleScenes, collate
from ldm.utils.image import to_pil, to_tensor
from tests.editors.test_repaint import pixel_model
from tests.refusals import refused

WALK = {"steps": 4, "jump_length": 2, "jump_n_sample": 2}


def holes(kind="wide", count=3, size=16):
    data = HoleScenes(5, count, kind, size)
    return collate([data[i] for i in range(count)])


def pixels(pictures):
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm_solver"])
def test_a_scene_is_filled_by_its_own_noise_whatever_the_batch(sampler):
    editor = RePaint(pixel_model(), sampler=sampler, **WALK)
    batch, calls = holes(), []
    together, exact = fill(editor, editor.settings, batch, [5, 6, 7], lambda *step: calls.append(step))
    assert exact.tolist() == [True] * 3 and len(calls) == editor.settings.calls() == 6
    last = {name: values[2:] for name, values in batch.items()}
    alone, _ = fill(editor, editor.settings, last, [7])
    other, _ = fill(editor, editor.settings, last, [8])
    assert np.abs(pixels(together[2:]) - pixels(alone)).max() <= 1
    hole = batch["mask"][2, 0].numpy() > 0
    assert np.abs(pixels(alone) - pixels(other))[0][hole].max() > 1
    assert np.array_equal(pixels(alone)[0][~hole], pixels([to_pil(batch["image"][2])])[0][~hole])


def test_a_changed_pixel_is_found_out(monkeypatch):
    editor = RePaint(pixel_model(), **WALK)
    batch, sample = holes(), editor.sample

    def careless(*arguments):
        filled = sample(*arguments)
        filled[1][:, batch["mask"][1, 0] == 0] += 0.01
        return filled

    monkeypatch.setattr(editor, "sample", careless)
    pictures, exact = fill(editor, editor.settings, batch, [5, 6, 7])
    assert exact.tolist() == [True, False, True]
    known = batch["mask"][1, 0].numpy() == 0  # compositing pastes it back
    assert np.array_equal(pixels(pictures)[1][known], pixels([to_pil(batch["image"][1])])[0][known])


@pytest.mark.parametrize("method", CLASSICAL)
def test_the_classical_methods_continue_what_is_around_the_hole(method):
    pytest.importorskip("cv2")
    flat = {"image": torch.full((2, 3, 32, 32), 0.2), "mask": torch.zeros(2, 1, 32, 32)}
    flat["mask"][0, :, 8:20, 8:20], flat["mask"][1, :, ::2] = 1, 1
    expected = pixels(map(to_pil, flat["image"]))
    assert (
        np.abs(pixels(fill_classically(method, flat)) - expected).max() <= 6
    )  # Telea's drift: a level a pixel inwards

    batch = holes(size=64)
    filled, scenes = pixels(fill_classically(method, batch)), pixels(map(to_pil, batch["image"]))
    hole = batch["mask"][:, 0].numpy() > 0
    assert np.array_equal(filled[~hole], scenes[~hole])
    assert measure(fill_classically(method, batch), batch, {})[PSNR].min() > 5


def test_opencv_is_needed_by_the_classical_methods_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    assert not hole_filling.has_opencv()
    with refused("opencv-python-headless", "pip install"):
        fill_classically("Telea", {})


def test_figures_count_the_hole_and_distances_the_whole():
    batch = holes("half", count=2)
    filled = batch["image"].clone()
    filled[0, :, :, 8:] = -filled[0, :, :, 8:]  # the right half is the hole
    figures = measure(list(map(to_pil, filled)), batch, {"mean": lambda a, b: (a - b).abs().mean((1, 2, 3))})
    assert set(figures) == {"mean", PSNR, SSIM}
    assert figures[PSNR][1] == torch.inf and figures[SSIM][1] == pytest.approx(1) and figures["mean"][1] == 0
    seen = torch.cat([to_tensor(to_pil(picture)) for picture in filled])
    error = (seen - batch["image"])[0, :, :, 8:].double().square().mean()
    assert figures[PSNR][0].item() == pytest.approx(10 * torch.log10(4 / error).item(), abs=1e-4)
    assert figures["mean"][0] == pytest.approx((seen - batch["image"])[0].abs().mean().item(), abs=1e-6)
    assert figures[SSIM][0] < 0.9


def test_differences_are_of_the_same_scenes():
    one = {"d": torch.tensor([1.0, 2.0, 3.0, 90.0]), PSNR: torch.tensor([1.0, 1.0, 1.0, 1.0])}
    other = {"d": torch.tensor([2.0, 3.0, 4.0]), PSNR: torch.tensor([0.0, 1.0, 2.0])}
    found = difference(one, other)
    assert found["d"] == (-1, 0) and found[PSNR] == pytest.approx((0, (1 / 3) ** 0.5))


def test_distances_are_better_when_lower():
    assert advantage("feature distance", (-0.3, 0.1)) == pytest.approx(3)
    assert advantage(PSNR, (-0.3, 0.1)) == pytest.approx(-3)
    assert advantage(PSNR, (1.0, 0.0)) == torch.inf and advantage("d", (1.0, 0.0)) == -torch.inf
    assert advantage(SSIM, (0.0, 0.0)) == 0
    masks = {
        "a": {"d": (-0.3, 0.1), PSNR: (1, 1)},
        "b": {"d": (-0.1, 0.1), PSNR: (-1, 1)},
        "c": {"d": (0, 1), PSNR: (2, 1)},
    }
    assert won(masks) == {
        "d": {"better": 2, "by two standard errors": 1, "of": 3},
        PSNR: {"better": 2, "by two standard errors": 1, "of": 3},
    }
