import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ldm.editors.exemplar import ExemplarEditor
from ldm.studies import sampler_study
from ldm.studies.sampler_study import Result, SamplerStudy, Setting, cheapest, seed_noise
from ldm.toyworld.scenes import ExemplarScenes, collate
from tests.refusals import refused
from tests.tiny import shipped_judge, tiny_model

CONVERGED = Setting("plms", 3, 2.0, seed=0)


def study(file, seed=3):
    data = ExemplarScenes(seed=seed, length=3)
    batches = [collate([data[0], data[1]]), collate([data[2]])]
    return SamplerStudy(ExemplarEditor(tiny_model()), shipped_judge(), batches, CONVERGED, {"seed": seed}, file)


@pytest.fixture
def made(monkeypatch):
    """The (sampler, steps, seeds) of the batches that are edited."""
    edited, edit = [], sampler_study.edit_and_judge

    def noted(editor, judge, batch, seeds):
        edited.append((editor.settings.sampler, editor.settings.steps, list(seeds)))
        return edit(editor, judge, batch, seeds)

    monkeypatch.setattr(sampler_study, "edit_and_judge", noted)
    return edited


def test_a_study_goes_on_where_it_stopped(tmp_path, made):
    settings = [CONVERGED, Setting("ddim", 2, 2.0, seed=0), Setting("dpm_solver", 2, 2.0, seed=1)]
    first = study(tmp_path / "study.json")
    results = [first.result(setting) for setting in settings[:2]]
    assert made == [("plms", 3, [0, 1]), ("plms", 3, [2]), ("ddim", 2, [0, 1]), ("ddim", 2, [2])]

    made.clear()
    second = study(tmp_path / "study.json")
    assert [second.result(setting) for setting in settings[:2]] == results
    assert made == []
    second.result(settings[2])  # the converged edits are needed again, to compare with
    assert [sampler for sampler, *_ in made] == ["dpm_solver"] * 2 + ["plms"] * 2
    assert made[0][2] == [1_000_000, 1_000_001]
    assert len(json.loads((tmp_path / "study.json").read_text())["results"]) == 3


def test_a_result_says_what_it_cost_and_how_far_it_is_from_convergence(tmp_path):
    here = study(tmp_path / "study.json")
    converged, other = here.result(CONVERGED), here.result(Setting("ddim", 2, 2.0, seed=0))
    assert (converged.calls, other.calls) == (4, 2)  # PLMS calls twice in its first step
    assert converged.distance == 0 < other.distance < 1
    assert {len(answers) for answers in other.answers.values()} == {3}
    assert here.result(replace(CONVERGED, seed=1)).distance > 0


def test_results_of_other_networks_or_scenes_are_refused(tmp_path, monkeypatch):
    study(tmp_path / "study.json").result(CONVERGED)
    with refused(tmp_path / "study.json"):
        study(tmp_path / "study.json", seed=4)
    monkeypatch.setattr(sampler_study, "fingerprint", lambda *networks: "others")
    with refused(tmp_path / "study.json"):
        study(tmp_path / "study.json")


@pytest.mark.parametrize("text", ["", "{}", '{"about": {}, "results": {"a": {"calls": 1}}}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with refused(tmp_path / "study.json"):
        study(tmp_path / "study.json")


def result(calls, answers):
    """Right answers, "1" or "0", about each scene: the same to all three questions."""
    return Result(calls, dict.fromkeys(("class", "colour", "pattern"), answers), 30.0, 0.1, 1.0)


def test_quality_is_the_share_of_right_answers():
    mixed = Result(5, {"class": "1100", "colour": "1110", "pattern": "1000"}, 30.0, 0.1, 1.0)
    assert mixed.quality == pytest.approx(6 / 12)
    assert mixed.all_right == pytest.approx(1 / 4)


def test_seed_noise_is_what_seeds_alone_do():
    """Scenes that are always right or always wrong add nothing; one that flips a coin adds its variance, over N."""
    assert seed_noise([result(5, "110"), result(5, "110"), result(5, "110")]) == 0
    assert seed_noise([result(5, "1100"), result(5, "1000")]) == pytest.approx((0.5**0.5) / 4)
    generator = torch.Generator().manual_seed(0)
    coins = (torch.rand(200, 400, generator=generator) < 0.3).int()
    runs = [result(5, "".join(map(str, row.tolist()))) for row in coins]
    spread = torch.tensor([run.quality for run in runs]).std().item()
    assert seed_noise(runs[:3]) == pytest.approx(spread, rel=0.15)


def made_up(results):
    """A study that knows these results by (sampler, steps, seed)."""
    return SimpleNamespace(result=lambda s: results[s.sampler, s.steps, s.seed])


def test_the_cheapest_is_as_good_as_the_reference_and_not_by_luck():
    good, worse, bad = "1" * 90 + "0" * 10, "1" * 80 + "0" * 20, "0" * 100
    flips = "1" * 89 + "0" * 2 + "1" + "0" * 8  # as good as `good`, with other scenes
    results = {("plms", 50, seed): result(51, flips if seed else good) for seed in range(3)}
    results |= {("ddim", 5, seed): result(5, bad) for seed in range(3)}
    results |= {("ddim", 10, seed): result(10, worse if seed else good) for seed in range(3)}  # good at one seed alone
    results |= {("dpm_solver", 20, seed): result(20, good) for seed in range(3)}
    results |= {("dpm_solver", 30, seed): result(30, good) for seed in range(3)}
    settings = [Setting(*key[:2], 5.0, 0) for key in results if key[2] == 0]
    reference = Setting("plms", 50, 5.0, 0)
    assert cheapest(made_up(results), settings, reference, range(3)) == Setting("dpm_solver", 20, 5.0, 0)
    only_bad = [Setting("ddim", 5, 5.0, 0), Setting("ddim", 10, 5.0, 0)]
    assert cheapest(made_up(results), only_bad, reference, range(3)) is None
