import json

import pytest

from ldm.presets import RePaintSettings
from ldm.studies import repaint_study
from ldm.studies.repaint_study import Way
from tests.checkpoints.guided import bare, config
from tests.refusals import assert_refused
from tests.tiny import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file, weights = write_model(tmp_path_factory.mktemp("model"), config(), bare(config()))
    return ["--model", file, "--ckpt", weights, "--device", "cpu", "--seed", 5]


FEW = ["--full", 6, 2, 2, "--full_count", 2, "--count", 3, "--curves", "fast", "slower", "--out", "out"]
CURVES = {"fast": [Way("dpm_solver", 3, 2, 2), Way("ddim", 2, eta=1.0)], "slower": [Way("ddpm", 2)]}


def test_a_study_of_three_scenes_is_not_made_twice(run_script, model, tmp_path, monkeypatch):
    monkeypatch.setattr(repaint_study, "CURVES", CURVES)
    done = run_script("repaint_study.py", *model, *FEW)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/repaint_study.json").read_text())["results"]
    assert [len(result["exact"]) for result in results.values()] == [3, 3, 3, 2]
    assert (tmp_path / "out/repaint_study.png").exists()
    assert "| full | ddpm, 6 steps, jump 2, 2 times | 10 | 100.0 |" in done.stdout
    assert "| fast | dpm_solver, 3 steps, jump 2, 2 times | 5 | 50.0 |" in done.stdout
    assert "at most 10 % of its calls: none" in done.stdout  # all of them are dearer
    assert "known pixels exact in 4 of 4 ways" in done.stdout

    monkeypatch.delattr(repaint_study, "fill")
    again = run_script("repaint_study.py", *model, *FEW)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout


def test_the_curves_are_those_that_can_be_asked_for(run_script):
    help = run_script("repaint_study.py", "--help").stdout
    assert f"{{{','.join(repaint_study.CURVES)}}}" in help
    base = RePaintSettings.read()
    assert all(way.calls(base) <= 500 for ways in repaint_study.CURVES.values() for way in ways)
    assert all(way.calls(base) < 241 for way in repaint_study.CURVES["fast"])


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        (["--count", 1], ("--count", "--full_count")),
        (["--mask", "whole"], "whole"),
        (["--full", 10, 10, 2], ("jump_length", 10)),
        (["--curves", "slow"], ("--curves", "slow")),
        (["--out", __file__], (__file__,)),
        (["--ckpt", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_bad_input_is_one_line(run_script, model, tmp_path, wrong, wanted):
    done = run_script("repaint_study.py", *model, *wrong)
    assert_refused(done, wanted, stdout=True)
    assert not (tmp_path / "docs").exists()
