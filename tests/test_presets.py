from typing import get_args, get_type_hints

import pytest

from ldm.presets import DiffEditSettings, EditSettings, PixelSampling, Preset, RePaintSettings, Sampling
from ldm.samplers import SAMPLERS
from ldm.utils.project import CONFIGS
from tests.refusals import refused


def test_the_original_differs_in_every_convention_at_once():
    original = EditSettings.read("original")
    assert (original.sampler, original.steps, original.guidance_scale) == ("ddim", 50, 1)
    assert EditSettings.read("original", eta=0.5).eta == 0.5
    assert (original.composite, original.match_colour, original.crop) == ("none", False, "none")
    assert (original.exemplar_fit, original.mask_rule, original.rounding) == ("original", "luma", "truncate")


def test_the_defaults_are_ours():
    default = EditSettings.read()
    assert (default.guidance_scale, default.n_samples, default.composite) == (5, 1, "feather")
    assert (default.exemplar_fit, default.mask_rule, default.rounding) == ("stretch", "any", "round")


def test_a_file_of_ones_own_says_only_what_it_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text("steps: 7\ncrop: auto\n")
    assert EditSettings.read(tmp_path / "mine.yaml", seed=1) == EditSettings.read(steps=7, crop="auto", seed=1)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("stepps: 7", ("stepps", "steps")),
        ("steps: many", ("steps", "many")),
        ("- steps", "mine.yaml"),
    ],
)
def test_a_wrong_file_is_answered_in_one_line(tmp_path, text, wanted):
    (tmp_path / "mine.yaml").write_text(text)
    with refused(wanted):
        EditSettings.read(tmp_path / "mine.yaml")


def test_a_missing_file_names_those_there_are():
    names = ", ".join(sorted(path.stem for path in (CONFIGS / "edit").glob("*.yaml")))
    with refused("nothing", names):
        EditSettings.read("nothing")
    with refused("edit"):
        EditSettings.read("x" * 300)


def test_steps_follow_the_sampler():
    assert EditSettings.read().steps != EditSettings.read(sampler="plms").steps == 50
    assert EditSettings.read(sampler="plms", steps=7).steps == 7
    with refused("sampler", "euler"):
        EditSettings.read(sampler="euler")


def test_eta_stays_with_the_sampler_of_its_preset(tmp_path):
    fast = RePaintSettings.read("fast")
    assert (fast.sampler, fast.eta) == ("ddim", 1)
    for sampler in ("ddpm", "dpm_solver"):
        assert RePaintSettings.read("fast", sampler=sampler).eta == 0
        with refused("eta", 1.0, "ddim"):
            RePaintSettings.read("fast", sampler=sampler, eta=1.0)
    assert RePaintSettings.read("fast", sampler="ddim").eta == 1
    (tmp_path / "eta.yaml").write_text("eta: 0.5")
    assert RePaintSettings.read(tmp_path / "eta.yaml", sampler="ddim").eta == 0.5
    for unchanged in ({}, {"sampler": "ddpm"}):  # which is the preset's own mistake
        with refused("eta", 0.5, "ddim"):
            RePaintSettings.read(tmp_path / "eta.yaml", **unchanged)


def test_what_lies_below_beats_the_defaults_alone():
    conf = {"sampler": "ddpm", "steps": 100, "n_sample": 3, "jump_length": 7}
    assert RePaintSettings.read("default", conf) == RePaintSettings.read(**conf)
    both = RePaintSettings.read("fast", conf)
    assert both == RePaintSettings.read("fast", n_sample=3)
    assert RePaintSettings.read("fast", conf, jump_length=4).jump_length == 4
    assert PixelSampling.read("default", {"classifier_scale": 4.0}) == PixelSampling.read(classifier_scale=4.0)


LAST = 2**63 - 1


def test_the_seed_of_the_last_sample_is_a_seed_too():
    for settings in (EditSettings.read, RePaintSettings.read, PixelSampling.read):
        assert settings(seed=LAST - 3, n_samples=4).seed == LAST - 3
        with refused("seed", LAST - 2, LAST - 3, 4):
            settings(seed=LAST - 2, n_samples=4)


@pytest.mark.parametrize(
    "settings, name",
    [
        (RePaintSettings.read, "eta"),
        (RePaintSettings.read, "guidance_scale"),
        (PixelSampling.read, "classifier_scale"),
        (EditSettings.read, "guidance_scale"),
        (DiffEditSettings.read, "clamp"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(settings, name, value):
    with refused(name, value):
        settings(**{name: value})


@pytest.mark.parametrize("kind", [EditSettings, Sampling, PixelSampling, RePaintSettings])
def test_every_sampler_of_a_kind_is_one_and_has_its_steps(kind):
    samplers = get_args(get_type_hints(kind)["sampler"])
    assert set(samplers) <= set(SAMPLERS)
    for sampler in samplers:
        assert kind.read(sampler=sampler).sampler == sampler


def test_a_sampler_that_a_preset_does_not_know_needs_steps(tmp_path):
    values = {**Preset.read(EditSettings).values, "steps": {"ddim": 10}}
    preset = Preset(EditSettings, values)
    assert preset.settings().steps == 10
    with refused("steps", "plms"):
        preset.changed(sampler="plms").settings()
    assert preset.changed(sampler="plms", steps=5).settings().steps == 5
