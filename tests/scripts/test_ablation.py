"""A rehearsal of the ablation: each row is trained once, rows share latents, and the report judges them."""

import json

import pytest
from omegaconf import OmegaConf

from tests.test_repo import ROOT, python


@pytest.fixture
def config(tmp_path):
    def row(key, cache, *train, **settings):
        given = [f"data.params.train.params.folder={tmp_path / cache}", "recipe.params.augment=false", *train]
        model = "${params.trainings}/" + key + "/config.yaml"
        return {"key": key, "name": key, "model": model, "settings": {"steps": 2, **settings}, "train": given}

    rows = [row("all", "plain", "model.params.conditioner.params.tokens=all"), row("class", "plain")]
    rows.append({"key": "guided", "name": "guided", "model": rows[1]["model"], "settings": {"steps": 2}})
    params = {
        "title": "A rehearsal",
        "count": 3,
        "references": 140,
        "components": 1,
        "trainings": str(tmp_path / "logs"),
        "rows": rows,
        "directions": [{"name": "+ bottleneck", "row": "class", "against": "all", "claims": {"fid": "falls"}}],
    }
    file = tmp_path / "small.yaml"
    OmegaConf.save({"include": str(ROOT / "configs/benchmark/ablation.yaml"), "params": params}, file)
    return file


def test_a_rehearsal(config, tmp_path):
    command = ["scripts/ablation.py", "--config", config, "--data", tmp_path / "scenes", "--scenes", "64", "--out",
               tmp_path / "report", "trainer.max_steps=1"]  # fmt: skip
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights written") == 2 and sorted(p.name for p in (tmp_path / "logs").iterdir()) == [
        "all", "class"
    ]  # fmt: skip
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["name"] for row in report["rows"]][2:] == ["all", "class", "guided"]
    assert report["about"]["directions"].keys() == {"+ bottleneck"} and report["partial"] is None
    again = python(*command)
    assert again.returncode == 0 and "weights written" not in again.stdout
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rows"] == report["rows"]


def test_a_benchmark_without_trainings_is_refused():
    done = python("scripts/ablation.py", "--config", "benchmark/toyworld")
    assert done.returncode == 2
    assert done.stderr == "error: config benchmark/toyworld: no params.training, whose runs its rows would be\n"
