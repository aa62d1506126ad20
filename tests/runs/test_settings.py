import pytest

from ldm.config import CONFIGS
from ldm.runs.settings import edit_settings
from ldm.utils.errors import UserError


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
