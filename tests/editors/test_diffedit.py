"""DiffEdit on a model whose eps is known, against an implementation of its own; and what it costs."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.editors import diffedit as diffedit_steps
from ldm.editors.diffedit import DiffEdit
from ldm.presets import DiffEditSettings
from ldm.samplers import ddim
from tests.editors.analytic import analytic_model, numpy_decode, numpy_inversion
from tests.refusals import refused
from tests.tiny import tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo

FAST = {"steps": 5, "n_maps": 2}


def pictures(batch=1, height=16, width=24):
    return 2 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) - 1


def half(batch=1, height=8, width=12):
    """A mask at latent size that touches the border."""
    inside = torch.zeros(batch, 1, height, width)
    inside[..., 2:, :5] = 1
    return inside


@pytest.fixture
def seen(monkeypatch):
    """What the decode is at after each step, by timestep."""
    levels = {}

    def watched(denoise, x, schedule, timesteps, *, hook=None, **options):
        def record(x, t):
            levels[t] = hook(x, t)
            return levels[t]

        return ddim(denoise, x, schedule, timesteps, hook=hook and record, **options)

    monkeypatch.setattr(diffedit_steps, "ddim", watched)
    return levels


@pytest.mark.parametrize("steps, ratio", [(10, 0.8), (10, 1.0), (20, 0.05), (1, 1.0), (1000, 0.004)])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_against_an_implementation_of_its_own(seen, steps, ratio, prediction):
    model, image, inside = analytic_model(prediction), pictures(), half()
    editor = DiffEdit(model, DiffEditSettings.read())
    inversion = editor.invert(image, encode_ratio=ratio, steps=steps)
    z = model.encode(image, None)
    expected = numpy_inversion(z[0].double().numpy(), inversion.timesteps.tolist())
    assert sorted(inversion.latents) == sorted(expected) and len(inversion.timesteps) == round(ratio * steps)
    for t, latent in expected.items():
        np.testing.assert_allclose(inversion.latents[t][0], latent, atol=2e-5 * max(1, np.abs(latent).max()))

    result = editor.edit(inversion, inside, ["left 1.5"], "right 0.5", guidance_scale=3.0)
    down = numpy_decode(expected, inside[0].numpy() > 0, (1.0, 1.5), (2.0, 0.5), 3.0)
    for t, latent in seen.items():
        if t in down:
            np.testing.assert_allclose(seen[t][0], down[t], atol=1e-4 * max(1, np.abs(down[t]).max()))
        background = (inside == 0).expand_as(z)  # at the very level it was recorded at
        assert torch.equal(latent[background], inversion.latents[t][background])
    assert set(seen) == {*inversion.timesteps[1:].tolist(), 0}
    assert torch.equal(result[(inside == 0).expand_as(z)], z[(inside == 0).expand_as(z)])
    if steps > 1 and ratio > 0.5:
        assert (result - z)[:, :, 2:, :5].abs().mean() > 0.05


COSTS = [
    ({}, 140),
    ({"guidance_scale": 1.0}, 20 + 40 + 40),
    ({"refine": 2}, 20 + 120 + 80),
    ({"steps": 10, "encode_ratio": 0.5, "n_maps": 3}, 6 + 5 + 10),
    ({"steps": 1, "encode_ratio": 1.0, "n_maps": 1}, 2 + 1 + 2),
]


@pytest.mark.parametrize("changes, expected", COSTS)
@pytest.mark.parametrize("given", [False, True])
def test_evaluations_are_those_of_the_paper(changes, expected, given):
    """2n + ratio S + 2 ratio S and not one more, by the rows that the network sees; and as the settings say."""
    model, told = analytic_model(), []
    settings = DiffEditSettings.read(**changes)
    hole = mask(8, 8, box=(0, 2, 4, 6)) if given else None
    DiffEdit(model, settings)(photo(8, 8), "left 1.5", mask=hole, callback=lambda stage, n: told.append(n))
    expected -= 2 * settings.n_maps * given
    assert model.unet.rows == expected == settings.evaluations(mask=not given) == sum(told)


def test_targets_share_what_they_can():
    """The source of the map and the inversion are computed once: for three targets 4n + ratio S + 6 ratio S."""
    model = analytic_model()
    editor = DiffEdit(model, steps=10, n_maps=3)
    editor(photo(8, 8), ["left 1.5", "right 1", "right -1"])
    assert model.unet.rows == 4 * 3 + 8 + 3 * 16


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_targets_in_one_call_are_their_single_runs(crop):
    editor = DiffEdit(analytic_model(), **FAST, crop=crop)
    targets, image = ["left 1.5", "right 1"], photo(30, 21)
    both = editor(image, targets)
    assert not np.array_equal(np.asarray(both.masks[0]), np.asarray(both.masks[1]))
    for k, target in enumerate(targets):
        single = editor(image, target)
        assert np.array_equal(np.asarray(single.masks[0]), np.asarray(both.masks[k]))
        assert np.abs(np.asarray(single.images[0]).astype(int) - np.asarray(both.images[k])).max() <= 1


def test_a_batch_of_pictures_is_its_single_runs():
    """In float64: random weights make of a rounding error in float32 one that can be seen."""
    editor = DiffEdit(copy.deepcopy(tiny_text_model()).double(), DiffEditSettings.read())
    editor.encode = lambda image: editor.model.encode(image.double(), None)
    image, targets, inside = pictures(3, 16, 16), ["a red ball", "a mug", "a blue ball"], half(3, 4, 4)

    def run(rows):
        inversion = editor.invert(image[rows], encode_ratio=0.6, steps=5, refine=1)
        return editor.edit(inversion, inside[rows], targets[rows]), editor.reconstruct(inversion)

    together = run(slice(None))
    for k in range(3):
        for both, single in zip(together, run(slice(k, k + 1)), strict=True):
            torch.testing.assert_close(both[k : k + 1], single, rtol=0, atol=1e-7)


def test_refinement_brings_the_picture_back():
    editor, errors = DiffEdit(analytic_model(), DiffEditSettings.read()), []
    for refine in (0, 1, 3, 12):
        inversion = editor.invert(pictures(), steps=50, refine=refine)
        errors.append((editor.reconstruct(inversion) - inversion.latents[0]).abs().max().item())
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.01 and errors[-1] < 1e-4


def test_a_condition_of_the_inversion_is_heard_and_kept_for_the_way_back():
    editor = DiffEdit(analytic_model(), DiffEditSettings.read())
    plain, told = (editor.invert(pictures(), condition, steps=5) for condition in (None, ["left 1.5"]))
    top = int(plain.timesteps[0])
    assert not torch.allclose(plain.latents[top], told.latents[top], atol=0.05)
    assert torch.equal(plain.latents[top], editor.invert(pictures(), [""], steps=5).latents[top])
    refined = editor.invert(pictures(), ["left 1.5"], steps=50, refine=12)
    torch.testing.assert_close(editor.reconstruct(refined), refined.latents[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (23, 15), (5, 33), (1, 1)])
@pytest.mark.parametrize("crop", ["none", "auto"])
def test_any_size(size, crop):
    image = photo(*size).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(size))
    hole = Image.new("L", size)
    hole.paste(255, (0, 0, -(-size[0] // 3), -(-size[1] // 3)))  # in a corner
    result = DiffEdit(analytic_model(), **FAST, crop=crop, composite="paste")(image, "left 1.5", mask=hole)
    before, after = np.asarray(image), np.asarray(result.images[0])
    outside = np.asarray(hole) == 0
    assert after.shape == before.shape and result.images[0].mode == "RGBA" and result.maps == []
    assert np.array_equal(after[outside], before[outside]) and np.array_equal(after[..., 3], before[..., 3])
    assert np.array_equal(np.asarray(result.masks[0]), np.asarray(hole))


def test_a_users_mask_selects_every_cell_that_it_touches(monkeypatch):
    cells, edit = [], DiffEdit.edit
    monkeypatch.setattr(DiffEdit, "edit", lambda self, i, m, *a, **k: cells.append(m) or edit(self, i, m, *a, **k))
    DiffEdit(analytic_model(), **FAST)(photo(8, 8), "left 1.5", mask=mask(8, 8, box=(1, 3, 3, 5)))
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 1:3, 0:2] = 1  # pixels 1..2 across and 3..4 down, cells of 2
    assert torch.equal(cells[0], expected)


def test_it_works_in_bfloat16():
    model, image, hole = copy.deepcopy(tiny_text_model()).bfloat16(), photo(16, 16), mask(16, 16, box=(0, 0, 8, 8))
    result = DiffEdit(model, **FAST, composite="paste")(image, "a red ball", mask=hole)
    changed = (np.asarray(result.images[0]) != np.asarray(image)).any(-1)
    assert changed[:8, :8].mean() > 0.9 and changed.sum() == changed[:8, :8].sum()


WRONG = [
    ({"target": " "}, "prompt"),
    ({"target": []}, "prompt"),
    ({"target": ["a mug", ""]}, "prompt"),
    ({"encode_ratio": 0.0}, ("encode_ratio", 0)),
    ({"encode_ratio": 1.2}, ("encode_ratio", 1.2)),
    ({"strength": 1.5}, ("strength", 1.5)),
    ({"threshold": 1.0}, ("threshold", 1)),
    ({"clamp": 0.0}, ("clamp", 0)),
    ({"n_maps": 0}, ("n_maps", 0)),
    ({"mask": Image.new("L", (9, 20), 255)}, ("mask", "9x20", "16x16")),
    ({"mask": Image.new("L", (16, 16), 0)}, "mask"),
]


@pytest.mark.parametrize("changes, wanted", WRONG)
def test_wrong_arguments_are_named(changes, wanted):
    with refused(wanted):
        DiffEdit(tiny_text_model(), **FAST)(photo(16, 16), **{"target": "a mug", **changes})


WRONG_STEPS = [
    ("infer_mask", {"n_maps": 0}, ("n_maps", 0)),
    ("infer_mask", {"strength": 1.5}, ("strength", 1.5)),
    ("infer_mask", {"threshold": 1.0}, ("threshold", 1)),
    ("infer_mask", {"clamp": -1.0}, ("clamp", -1)),
    ("invert", {"encode_ratio": 1.2}, ("encode_ratio", 1.2)),
    ("invert", {"encode_ratio": 0.1, "steps": 4}, ("encode_ratio", 0.1, 4)),
    ("invert", {"steps": 0}, ("steps", 0)),
    ("invert", {"refine": -1}, ("refine", -1)),
]


@pytest.mark.parametrize("step, arguments, wanted", WRONG_STEPS)
def test_a_step_alone_refuses_what_the_whole_does(step, arguments, wanted):
    model, prompts = analytic_model(), ([""], ["left 1.5"]) if step == "infer_mask" else ()
    with refused(wanted):
        getattr(DiffEdit(model, DiffEditSettings.read()), step)(pictures(), *prompts, **arguments)
    assert not model.unet.rows


def test_an_exemplar_model_is_refused():
    with refused("UNet", 9, 4):
        DiffEdit(tiny_model())


def test_a_step_alone_follows_the_editors_settings():
    model = analytic_model()
    editor = DiffEdit(model, steps=10, encode_ratio=0.6, n_maps=3, guidance_scale=1.0)
    inversion = editor.invert(pictures())
    assert len(inversion.timesteps) == 6 == model.unet.rows
    editor.infer_mask(pictures(), [""], ["left 1.5"])
    assert model.unet.rows == 6 + 2 * 3
    editor.edit(inversion, half(), ["left 1.5"])
    assert model.unet.rows == 6 + 2 * 3 + 6
    assert len(editor.invert(pictures(), encode_ratio=0.2).timesteps) == 2  # the call beats them


def test_steps_take_contexts_as_well_as_prompts():
    editor = DiffEdit(analytic_model(), **FAST)
    source, target = (editor.model.conditioner([prompt]) for prompt in ("right 0.3", "left 1.5"))
    both = [editor.infer_mask(pictures(), *pair).map for pair in ((["right 0.3"], ["left 1.5"]), (source, target))]
    assert torch.equal(*both)
    inversions = [editor.invert(pictures(), condition) for condition in (["left 1.5"], target)]
    top = int(inversions[0].timesteps[0])
    assert torch.equal(inversions[0].latents[top], inversions[1].latents[top])
    edits = [editor.edit(inversions[0], half(), wanted) for wanted in (["left 1.5"], target)]
    assert torch.equal(*edits)
