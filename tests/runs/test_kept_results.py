import json
from dataclasses import dataclass

import torch

from ldm.runs.kept_results import KeptResults, fingerprint
from tests.refusals import refused


@dataclass(frozen=True)
class Result:
    calls: int
    values: list[float]


def kept(file, **about):
    return KeptResults(file, Result, about, "a study of nothing")


def test_a_result_is_kept_as_soon_as_it_is_there(tmp_path):
    file = tmp_path / "new" / "study.json"
    results = kept(file, seed=3)
    assert not file.exists() and "a" not in results
    results["a"] = Result(5, [0.1, 1 / 3])
    results["b"] = Result(6, [])
    again = kept(file, seed=3)
    assert "a" in again and "b" in again and "c" not in again
    assert again["a"] == Result(5, [0.1, 1 / 3])
    assert json.loads(file.read_text())["about"] == {"seed": 3}
    assert [path.name for path in file.parent.iterdir()] == ["study.json"]


def test_results_of_something_else_are_refused(tmp_path):
    kept(tmp_path / "study.json", seed=3)["a"] = Result(5, [])
    with refused(tmp_path / "study.json"):
        kept(tmp_path / "study.json", seed=4)
    for text in ("", "{}", "[]", '{"about": {}, "results": {"a": {"calls": 1}}}', '{"about": {}, "results": {"a": 3}}'):
        (tmp_path / "study.json").write_text(text)
        with refused(tmp_path / "study.json"):
            kept(tmp_path / "study.json")


def test_a_fingerprint_sees_every_weight():
    network = torch.nn.Linear(3, 3)
    before = fingerprint(network)
    assert fingerprint(network) == before
    with torch.no_grad():
        network.bias[2] += 1e-6
    assert fingerprint(network) != before
