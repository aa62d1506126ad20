import pytest

from ldm.presets import diffedit_settings, edit_settings, pixel_settings, repaint_settings
from ldm.utils.errors import UserError
from ldm.utils.project import CONFIGS


def test_the_original_differs_in_every_convention_at_once():
    original = edit_settings("original")
    assert (original.sampler, original.steps, original.guidance_scale) == ("ddim", 50, 1)
    assert edit_settings("original", eta=0.5).eta == 0.5
    assert (original.composite, original.match_colour, original.crop) == ("none", False, "none")
    assert (original.exemplar_fit, original.mask_rule, original.rounding) == ("original", "luma", "truncate")


def test_the_defaults_are_ours():
    default = edit_settings()
    assert (default.guidance_scale, default.n_samples, default.composite) == (5, 1, "feather")
    assert (default.exemplar_fit, default.mask_rule, default.rounding) == ("stretch", "any", "round")


def test_a_file_of_ones_own_says_only_what_it_changes(tmp_path):
    (tmp_path / "mine.yaml").write_text("steps: 7\ncrop: auto\n")
    assert edit_settings(tmp_path / "mine.yaml", seed=1) == edit_settings(steps=7, crop="auto", seed=1)


@pytest.mark.parametrize(
    "text, message",
    [
        ("stepps: 7", "unknown key 'stepps' .there are crop, composite, "),
        ("steps: many", "steps 'many': expected int"),
        ("- steps", "expected a mapping"),
    ],
)
def test_a_wrong_file_is_answered_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        edit_settings(tmp_path / "mine.yaml")


def test_a_missing_file_names_those_there_are():
    names = ", ".join(sorted(path.stem for path in (CONFIGS / "edit").glob("*.yaml")))
    with pytest.raises(UserError, match=f"edit settings nothing: neither a file nor one of {names}"):
        edit_settings("nothing")
    with pytest.raises(UserError, match="edit settings xxx.*: neither a file"):
        edit_settings("x" * 300)


def test_steps_follow_the_sampler():
    assert edit_settings().steps != edit_settings(sampler="plms").steps == 50
    assert edit_settings(sampler="plms", steps=7).steps == 7
    with pytest.raises(UserError, match="sampler 'euler': expected one of"):
        edit_settings(sampler="euler")


def test_eta_stays_with_the_sampler_of_its_preset(tmp_path):
    fast = repaint_settings("fast")
    assert (fast.sampler, fast.eta) == ("ddim", 1)
    for sampler in ("ddpm", "dpm_solver"):
        assert repaint_settings("fast", sampler=sampler).eta == 0
        with pytest.raises(UserError, match="eta 1.0: only the sampler ddim takes it"):
            repaint_settings("fast", sampler=sampler, eta=1.0)
    assert repaint_settings("fast", sampler="ddim").eta == 1
    (tmp_path / "eta.yaml").write_text("eta: 0.5")
    assert repaint_settings(tmp_path / "eta.yaml", sampler="ddim").eta == 0.5
    for unchanged in ({}, {"sampler": "ddpm"}):  # which is the preset's own mistake
        with pytest.raises(UserError, match="eta 0.5: only the sampler ddim takes it"):
            repaint_settings(tmp_path / "eta.yaml", **unchanged)


def test_what_lies_below_beats_the_defaults_alone():
    conf = {"sampler": "ddpm", "steps": 100, "n_sample": 3, "jump_length": 7}
    assert repaint_settings(below=conf) == repaint_settings(**conf)
    both = repaint_settings("fast", conf)
    assert both == repaint_settings("fast", n_sample=3)
    assert repaint_settings("fast", conf, jump_length=4).jump_length == 4
    assert pixel_settings(below={"classifier_scale": 4.0}) == pixel_settings(classifier_scale=4.0)


LAST = 2**63 - 1


def test_the_seed_of_the_last_sample_is_a_seed_too():
    for settings in (edit_settings, repaint_settings, pixel_settings):
        assert settings(seed=LAST - 3, n_samples=4).seed == LAST - 3
        with pytest.raises(UserError, match=f"seed {LAST - 2}: expected {LAST - 3} or less, the last of 4 samples"):
            settings(seed=LAST - 2, n_samples=4)


@pytest.mark.parametrize(
    "settings, name",
    [
        (repaint_settings, "eta"),
        (repaint_settings, "guidance_scale"),
        (pixel_settings, "classifier_scale"),
        (edit_settings, "guidance_scale"),
        (diffedit_settings, "clamp"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_are_finite(settings, name, value):
    with pytest.raises(UserError, match=f"^{name} {value}: expected a finite number$"):
        settings(**{name: value})
