import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.editors import exemplar as editing
from ldm.editors.compose import distance
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.exemplars import exemplar_pixels, fit_exemplar
from ldm.presets import EditSettings
from ldm.samplers import SAMPLERS
from ldm.utils.clip import CLIP_MEAN
from ldm.utils.mask import parse_mask
from ldm.utils.random import NoiseSource
from tests.refusals import assert_line, refused
from tests.tiny import tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo

FAST = {"steps": 2, "feather": 3}


def edit(size=(48, 32), picture=None, hole=None, reference=None, model=None, **changes):
    editor = ExemplarEditor(model or tiny_model(), **FAST)
    hole = mask(*size) if hole is None else hole
    reference = photo(40, 30, seed=7) if reference is None else reference
    return editor(picture or photo(*size), hole, reference, **changes)


def arrays(result):
    return [np.asarray(picture).astype(int) for picture in result.images]


@pytest.mark.parametrize("size", [(64, 48), (97, 131), (64, 65), (47, 31), (5, 300), (1, 1)])
@pytest.mark.parametrize("crop", ["none", "auto"])
def test_any_size_in_the_same_size_out(size, crop):
    hole = Image.new("L", size, 255) if min(size) < 4 else mask(*size)
    result = edit(size, hole=hole, crop=crop)
    assert [picture.size for picture in result.images] == [size]
    assert {result.mask.size, result.masked.size} == {size}


def test_a_large_picture_by_its_crop():
    result = edit((1024, 681), hole=mask(1024, 681, box=(500, 300, 560, 350)), crop="auto")
    assert result.images[0].size == (1024, 681)


@pytest.mark.parametrize("crop", ["none", "auto"])
@pytest.mark.parametrize("composite", ["feather", "paste"])
def test_beyond_the_feather_every_byte_is_the_scenes(crop, composite):
    size, hole = (150, 90), mask(150, 90, box=(20, 30, 50, 60))
    result = edit(size, hole=hole, crop=crop, composite=composite)
    far = distance(parse_mask(hole, size), 3)[0, 0].numpy()
    changed = arrays(result)[0] != np.asarray(photo(*size))
    assert not changed[far > (3 if composite == "feather" else 0)].any()
    assert changed[far == 0].any(-1).mean() > 0.9


def test_without_compositing_the_background_is_the_models_too():
    result = edit(composite="none")
    far = distance(parse_mask(mask(), (48, 32)), 3)[0, 0].numpy()
    assert (arrays(result)[0] != np.asarray(photo()))[far > 3].any(-1).mean() > 0.9


def test_a_crop_is_stitched_where_it_was_cut():
    result = edit((200, 120), hole=mask(200, 120, box=(10, 70, 20, 80)), crop="auto", composite="none")
    changed = (arrays(result)[0] != np.asarray(photo(200, 120))).any(-1)
    rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (65, 84, 5, 24)


@pytest.mark.parametrize("sampler, eta", [("plms", 0.0), ("ddim", 1.0), ("ddpm", 0.0), ("dpm_solver", 0.0)])
def test_a_batch_is_its_samples(sampler, eta):
    batch = edit(n_samples=4, seed=11, sampler=sampler, eta=eta)
    assert batch.seeds == [11, 12, 13, 14]
    for k, picture in enumerate(arrays(batch)):
        (single,) = arrays(edit(seed=11 + k, sampler=sampler, eta=eta))
        assert np.abs(picture - single).max() <= 1
    assert np.abs(arrays(batch)[0] - arrays(batch)[1]).max() > 10


def test_noise_is_drawn_per_sample_start_first_then_posterior_then_steps(monkeypatch):
    """Bit for bit: the start, the masked image's latent and the noise of the steps of sample 1 in a batch and alone."""
    draws = {}

    class Recorder(NoiseSource):
        def __init__(self, seeds):
            super().__init__(seeds)
            self.name = tuple(seeds)

        def randn(self, *shape):
            noise = super().randn(*shape)
            draws.setdefault(self.name, []).append(noise)
            return noise

    monkeypatch.setattr(editing, "NoiseSource", Recorder)
    edit(seed=5, n_samples=2, sampler="ddim", eta=1.0, steps=3)
    edit(seed=6, sampler="ddim", eta=1.0, steps=3)
    batch, single = draws[(5, 6)], draws[(6,)]
    own = torch.Generator().manual_seed(6)
    shape = (4, 8, 12)
    assert len(batch) == len(single) == 2 + 3
    for both, alone in zip(batch, single, strict=True):
        assert torch.equal(both[1], alone[0])
        assert torch.equal(alone[0], torch.randn(shape, generator=own))


def test_a_fixed_start_is_shared_and_the_rest_is_not(monkeypatch):
    starts = []

    def sampler(denoise, x, *args, **kwargs):
        starts.append((x, kwargs["noise"](1)))
        return x

    monkeypatch.setitem(SAMPLERS, "plms", sampler)
    edit(sampler="plms", seed=3, n_samples=2, start_seed=9)
    (x, noise), expected = starts[0], torch.randn(4, 8, 12, generator=torch.Generator().manual_seed(9))
    assert torch.equal(x, expected.expand(2, -1, -1, -1))
    assert noise[0] != noise[1]


def test_the_exemplar_the_mask_the_scene_and_the_guidance_all_matter():
    inside = parse_mask(mask(), (48, 32))[0, 0].bool().numpy()
    base = arrays(edit())[0]
    others = [
        edit(reference=photo(40, 30, seed=8)),
        edit(guidance_scale=1.0),
        edit(picture=photo(seed=3)),
        edit(hole=mask(box=(6, 6, 40, 28))),
        edit(seed=1),
        edit(steps=3),
    ]
    for other in others:
        assert (arrays(other)[0] != base)[inside].any()


def test_progress_is_reported():
    seen = []
    edit(steps=4, callback=lambda i, t, x, x0: seen.append((i, t, tuple(x0.shape))))
    assert [(i, shape) for i, _, shape in seen] == [(i, (1, 4, 8, 12)) for i in range(4)]


def test_alpha_of_the_scene_is_carried_through():
    picture = photo()
    picture.putalpha(Image.linear_gradient("L").resize((48, 32)))
    result = edit(picture=picture)
    assert result.images[0].getchannel("A").tobytes() == picture.getchannel("A").tobytes()


def test_the_result_shows_what_the_model_was_given():
    result = edit(reference=photo(32, 32, seed=7))
    keep = np.asarray(mask()) == 0
    assert result.mask.tobytes() == mask().tobytes()
    assert np.array_equal(np.asarray(result.masked)[keep], np.asarray(photo())[keep])
    assert np.array_equal(np.unique(np.asarray(result.masked)[~keep]), [128])
    assert result.exemplars[0].tobytes() == photo(32, 32, seed=7).tobytes()
    assert result.settings == EditSettings.read(**FAST)


def test_a_mask_as_a_tensor():
    picture, hole = photo(), mask()
    (a,), (b,) = (
        arrays(edit(picture=picture, hole=hole)),
        arrays(edit(picture=picture, hole=parse_mask(hole, (48, 32)))),
    )
    assert np.array_equal(a, b)
    with refused("mask", "(1, 1, 32, 40)", "(1, 1, 32, 48)"):
        edit(hole=torch.ones(1, 1, 32, 40))
    with refused("mask"):
        edit(hole=torch.zeros(1, 1, 32, 48))


def test_all_of_the_picture_can_be_repainted():
    (repainted,) = arrays(edit(hole=Image.new("L", (48, 32), 255)))
    assert (repainted != np.asarray(photo())).any(-1).mean() > 0.9


def test_a_mask_too_small_for_the_latents_is_said_so(caplog):
    edit(hole=mask(box=(0, 0, 1, 1)))
    (message,) = caplog.messages
    assert_line(message, "mask")


def test_a_picture_much_larger_than_the_model_is_said_so(caplog):
    edit((200, 16))
    (message,) = caplog.messages
    assert_line(message, "200x16", 64)


# the exemplar


def test_a_transparent_exemplar_lies_on_clips_mean_colour():
    cut_out = photo(32, 32)
    cut_out.putalpha(mask(32, 32))
    square = np.asarray(fit_exemplar(cut_out, 32, "stretch"))
    opaque = np.asarray(mask(32, 32)) == 255
    assert np.array_equal(square[opaque], np.asarray(photo(32, 32))[opaque])
    assert np.abs(square[~opaque] - 255 * np.array(CLIP_MEAN)).max() <= 0.5
    assert np.array_equal(np.asarray(fit_exemplar(cut_out, 32, "original")), np.asarray(photo(32, 32)))


def test_stretch_shows_all_and_crop_keeps_the_proportions():
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("blue", (30, 0, 60, 30))
    assert {colour for _, colour in fit_exemplar(wide, 30, "crop").getcolors()} == {(0, 0, 255)}
    assert fit_exemplar(wide, 30, "stretch").getpixel((2, 15)) == (255, 0, 0)


def test_pixels_of_the_original_are_rounded_to_float16():
    square = photo(16, 16)
    assert torch.equal(exemplar_pixels(square, float16=True), exemplar_pixels(square).half().float())
    assert not torch.equal(exemplar_pixels(square, float16=True), exemplar_pixels(square))


# bad input


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"steps": 0}, ("steps", 0)),
        ({"steps": 1001}, ("steps", 1001, 1000)),
        ({"sampler": "euler"}, ("sampler", "euler", "ddim", "ddpm", "dpm_solver", "plms")),
        ({"sampler": "plms", "eta": 0.5}, ("eta", 0.5, "ddim")),
        ({"guidance_scale": "5"}, ("guidance_scale", 5)),
        ({"seed": -1}, ("seed", -1)),
        ({"seed": 10**20 - 1}, ("seed", 99999999999999999999, 9223372036854775807)),
        ({"n_samples": True}, ("n_samples", True)),
        ({"crop": "yes"}, ("crop", "yes", "none", "auto")),
        ({"feather": -2}, ("feather", -2)),
    ],
)
def test_wrong_settings_are_named(changes, wanted):
    with refused(wanted):
        edit(**changes)


def test_the_seeds_of_all_samples_are_seeds():
    assert edit(seed=2**63 - 2, n_samples=2).seeds == [2**63 - 2, 2**63 - 1]
    with refused("seed", 9223372036854775807, 9223372036854775806):
        edit(seed=2**63 - 1, n_samples=2)


def test_a_setting_that_does_not_exist_is_named_with_the_nearest():
    with refused("guidance", "guidance_scale"):
        edit(guidance=3)
    with refused("guidance", "guidance_scale"):
        ExemplarEditor(tiny_model(), guidance=3)


def test_a_setting_means_the_same_in_the_constructor_and_in_a_call():
    editor = ExemplarEditor(tiny_model(), steps=1)
    assert ExemplarEditor(tiny_model(), sampler="plms").settings.steps == 50
    assert ExemplarEditor(tiny_model()).changed({"sampler": "plms"}).steps == 50
    assert editor.changed({"sampler": "plms"}).steps == 1  # they have been chosen
    assert ExemplarEditor(tiny_model(), EditSettings.read(steps=3)).changed({"sampler": "plms"}).steps == 3


def test_models_that_cannot_edit_are_refused():
    with refused("UNet", 4, 9):
        ExemplarEditor(tiny_text_model(), EditSettings.read())
    model = copy.copy(tiny_model())
    model._modules = {**model._modules, "conditioner": None}
    with refused("NoneType"):
        ExemplarEditor(model, EditSettings.read())


def test_output_that_is_no_number_never_becomes_a_picture(monkeypatch):
    monkeypatch.setattr(tiny_model().autoencoder, "decode", lambda z: torch.full((1, 3, 32, 48), torch.nan))
    with refused():
        edit()


def test_settings_of_the_editor_can_be_replaced_as_a_whole():
    settings = replace(EditSettings.read("original"), steps=2)
    editor = ExemplarEditor(tiny_model(), settings)
    assert editor(photo(), mask(), photo()).settings == settings
