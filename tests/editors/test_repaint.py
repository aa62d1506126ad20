import copy
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

import ldm
from ldm.config import build
from ldm.editors.repaint import RePaint
from ldm.presets import RePaintSettings
from tests.checkpoints.guided import classifier, config
from tests.golden_weights import fill
from tests.refusals import refused
from tests.tiny import tiny_model, tiny_text_model

FAST = {"steps": 4, "jump_length": 2, "jump_n_sample": 2}


@cache
def pixel_model(**options):
    return fill(build(config(**options).model)).eval()


@cache
def pixel_classifier(**options):
    return fill(build(classifier(**options).model)).eval()


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    shape = (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode)


def hole(width: int, height: int) -> Image.Image:
    """The middle."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)] = 255
    return Image.fromarray(mask)


def fill_hole(model=None, size=(16, 16), told=None, mode="RGB", **changes):
    editor = RePaint(model or pixel_model(), **FAST)
    return editor(picture(*size, mode=mode), hole(*size), **(told or {}), **changes)


@pytest.mark.parametrize("size", [(16, 16), (33, 21), (9, 64)])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_known_pixels_are_exact_and_the_hole_is_filled_at_any_size(size, sampler):
    result = fill_hole(size=size, sampler=sampler)
    known = np.array(hole(*size)) == 0
    before, after = np.array(picture(*size)), np.array(result.images[0])
    assert result.images[0].size == size
    assert np.array_equal(after[known], before[known])
    assert (after[~known] != before[~known]).any(-1).mean() > 0.9


def test_without_compositing_known_pixels_are_exact_too():
    result = fill_hole(composite="none")
    known = np.array(hole(16, 16)) == 0
    assert np.array_equal(np.array(result.images[0])[known], np.array(picture(16, 16))[known])


def test_a_bf16_model_leaves_known_pixels_alone():
    result = fill_hole(copy.deepcopy(pixel_model()).bfloat16(), composite="none")
    known = np.array(hole(16, 16)) == 0
    assert np.array_equal(np.array(result.images[0])[known], np.array(picture(16, 16))[known])


def test_alpha_is_kept():
    result = fill_hole(mode="RGBA")
    assert result.images[0].mode == "RGBA"
    assert result.images[0].getchannel("A").tobytes() == picture(16, 16, mode="RGBA").getchannel("A").tobytes()


def test_a_sample_does_not_know_of_the_others():
    together = fill_hole(n_samples=3, seed=7)
    alone = fill_hole(n_samples=1, seed=8)
    assert together.seeds == [7, 8, 9]
    difference = np.abs(np.array(together.images[1]).astype(int) - np.array(alone.images[0]))
    assert difference.max() <= 1
    assert together.images[0].tobytes() != together.images[1].tobytes()


def test_the_network_is_called_as_the_schedule_says():
    calls = []
    fill_hole(callback=lambda i, t, x, x0: calls.append((i, t)))
    times = RePaintSettings.read(**FAST).times()
    assert len(calls) == sum(b < a for a, b in zip(times, times[1:], strict=False))
    assert calls[0] == (0, 999) and calls[-1][1] == 0


def test_what_is_known_goes_in_and_x0_is_clipped():
    """At each call but the first the network sees the picture itself around the hole, at the noise of that level."""
    model, seen, clean = pixel_model(), [], []
    handle = model.unet.register_forward_pre_hook(lambda _, given: seen.append((given[1][0].item(), given[0])))
    try:
        editor = RePaint(model, **FAST)
        shade = Image.new("RGB", (16, 16), (230, 230, 230))
        editor(shade, hole(16, 16), n_samples=8, callback=lambda i, t, x, x0: clean.append(x0))
    finally:
        handle.remove()
    assert len(seen) == editor.settings.calls()
    assert all(x0.abs().max() <= 1 + 5e-3 for x0 in clean)  # by way of the noise, where float32 rounds 1 - alpha
    known = (torch.from_numpy(np.array(hole(16, 16))) == 0).expand(8, 3, 16, 16)
    for t, x in seen[1:]:
        a = model.schedule.alphas_cumprod[t].item()
        noise = (x[known] - a**0.5 * (230 / 127.5 - 1)) / (1 - a) ** 0.5
        assert abs(noise.mean().item()) < 0.06 and abs(noise.std().item() - 1) < 0.05  # of 4600 numbers
    low = seen[-1][1]  # of the walk's last step, where there is next to no noise
    assert (low[known] - (230 / 127.5 - 1)).abs().max() < 0.1


def test_the_mask_may_be_a_tensor():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    by_tensor = RePaint(pixel_model(), **FAST)(picture(16, 16), mask)
    assert by_tensor.images[0].tobytes() == fill_hole().images[0].tobytes()


# Classes


def test_a_class_changes_the_picture():
    model = pixel_model(num_classes=5)
    first, second = (fill_hole(model, told={"class_id": k}).images[0].tobytes() for k in (0, 4))
    assert first != second


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_a_classifier_guides(sampler):
    guided = {}
    for scale in (0.0, 1.0, 50.0):
        editor = RePaint(pixel_model(), classifier=pixel_classifier(), **FAST, sampler=sampler, classifier_scale=scale)
        guided[scale] = np.array(editor(picture(16, 16), hole(16, 16), class_id=3).images[0])
    plain = np.array(fill_hole(sampler=sampler).images[0])
    assert np.array_equal(guided[0.0], plain)
    assert not np.array_equal(guided[50.0], plain)


WRONG = {
    "no class": (lambda: pixel_model(num_classes=5), None, {}, ("class_id", 0, 4)),
    "class beyond": (lambda: pixel_model(num_classes=5), None, {"class_id": 5}, ("class_id", 5, 0, 4)),
    "class below": (lambda: pixel_model(num_classes=5), None, {"class_id": -1}, ("class_id", -1, 0, 4)),
    "class of no use": (pixel_model, None, {"class_id": 1}, ("class_id", 1)),
    "classifier alone": (pixel_model, pixel_classifier, {}, "class_id"),
    "other classes": (lambda: pixel_model(num_classes=7), pixel_classifier, {"class_id": 1}, (7, 5, "classifier")),
    "prompt": (pixel_model, None, {"prompt": "a red ball"}, "prompt"),
    "exemplar": (pixel_model, None, {"exemplar": picture(8, 8)}, "exemplar"),
    "no exemplar": (tiny_model, None, {}, "exemplar"),
    "class for prompts": (tiny_text_model, None, {"class_id": 1}, ("class_id", 1)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_go_together(case):
    model, guide, told, wanted = WRONG[case]
    editor = RePaint(model(), classifier=guide() if guide else None, **FAST)
    with refused(wanted):
        editor(picture(16, 16), hole(16, 16), **told)


@pytest.mark.parametrize("count", [None, 0, "5"])
def test_a_classifier_says_how_many_classes_it_knows(count):
    guide = torch.nn.Linear(1, 1)
    guide.num_classes = count
    with refused("classifier", "num_classes", "Linear", count):
        RePaint(pixel_model(), classifier=guide, **FAST)


def test_a_classifier_guides_models_of_pictures_alone():
    with refused("classifier", "LatentDiffusion"):
        RePaint(tiny_text_model(), classifier=pixel_classifier())


# Masks and settings


@pytest.mark.parametrize(
    "mask, wanted",
    [
        (Image.new("L", (16, 16), 0), "mask"),
        (Image.new("L", (16, 16), 255), "mask"),
        (hole(16, 24), ("16x24", "16x16")),
        (torch.ones(1, 1, 8, 8), ("mask", "(1, 1, 8, 8)", "(1, 1, 16, 16)")),
    ],
)
def test_wrong_masks(mask, wanted):
    with refused(wanted):
        RePaint(pixel_model(), **FAST)(picture(16, 16), mask)


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        ({"sampler": "plms"}, ("sampler", "plms", "ddpm", "ddim", "dpm_solver")),
        ({"jump_length": 4}, ("jump_length", 4)),
        ({"jump_n_sample": 0}, ("jump_n_sample", 0)),
        ({"steps": 0}, ("steps", 0)),
        ({"steps": 1001}, ("steps", 1001, 1000)),
        ({"eta": 1.0}, ("eta", 1.0, "ddim")),
        ({"start_resampling": "late"}, ("start_resampling", "late")),
        ({"n_samples": 0}, ("n_samples", 0)),
        ({"seed": -1}, ("seed", -1)),
    ],
)
def test_wrong_settings(wrong, wanted):
    with refused(wanted):
        fill_hole(**wrong)


def test_a_crop_that_leaves_no_known_pixel_is_told():
    """Every other row of a picture twice as large as the model's: each pixel that the model sees is touched."""
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[::2] = 255
    editor = RePaint(pixel_model(), **FAST)
    with refused("mask", "crop", "auto", "none"):
        editor(picture(32, 32), Image.fromarray(mask), crop="auto")
    assert editor(picture(32, 32), Image.fromarray(mask), crop="none").images


def test_a_soft_mask_is_cut_at_a_half():
    soft = torch.full((1, 1, 16, 16), 0.3)
    soft[..., 4:12, 4:12] = 0.7
    result = RePaint(pixel_model(), **FAST)(picture(16, 16), soft)
    assert result.mask.tobytes() == hole(16, 16).tobytes()


def test_from_the_package():
    result = ldm.RePaint(pixel_model(), **FAST)(picture(16, 16), hole(16, 16), seed=3)
    assert result.settings == RePaintSettings.read(**FAST, seed=3)
    assert result.mask.tobytes() == hole(16, 16).tobytes()
    masked = np.array(result.masked)
    assert (masked[np.array(hole(16, 16)) > 0] == 128).all()
