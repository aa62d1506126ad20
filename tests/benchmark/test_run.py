import json
import re

import pytest
import torch

from ldm.benchmark.report import Column, Report, Row
from ldm.benchmark.run import (
    THIS_RUN,
    Benchmark,
    Generated,
    Measured,
    RunContext,
    collect_errors,
    commit,
    run_benchmark,
)
from ldm.utils.errors import UserError
from ldm.utils.processes import Share

REPORT = Report("Title", [Column("a", "A")], [Row("ours", {"a": 1.0}, "here")], {"data": "here"}, ["a note"])


class Fake(Benchmark):
    def __init__(self, made=(), measured=()):
        self.made, self.measured = list(made), list(measured)

    def generate(self, work):
        return Generated({"row": work.folder / "row"}, 3, self.made)

    def measure(self, work, folders):
        assert folders == {"row": work.folder / "row"}
        return Measured(REPORT, {"plot": lambda path: path.write_bytes(b"")}, self.measured)


@pytest.fixture
def work(tmp_path):
    return RunContext(tmp_path / "out", 2, 4, torch.device("cpu"), Share())


def report(work) -> dict:
    return json.loads((work.folder / "report.json").read_text(encoding="utf-8"))


def test_the_report_says_what_it_depends_on(work):
    paths, problems = run_benchmark(Fake(), work, {"config": "tiny"})
    assert paths == [work.folder / name for name in ("report.md", "report.json", "plot.png")] and problems == []
    held = report(work)
    assert held["partial"] is None and held["notes"] == ["a note"]
    about = held["about"]
    assert (about["config"], about["data"]) == ("tiny", "here")
    assert torch.__version__.startswith(about["versions"]["torch"])
    assert about[THIS_RUN]["pictures made"] == 3
    assert (work.folder / "plot.png").exists()


def test_what_failed_stands_in_the_report_and_makes_it_partial(work):
    assert run_benchmark(Fake(["one", "one", "two"], ["three"]), work, {})[1] == ["one", "two", "three"]
    held = report(work)
    assert held["notes"] == ["a note", "**Failed:** one", "**Failed:** two", "**Failed:** three"]
    assert held["partial"] == "3 things failed, see below"


def test_only_the_first_process_measures(work):
    other = RunContext(work.folder, None, 4, work.device, Share(1, 2, 1))
    assert run_benchmark(Fake(["one"], ["three"]), other, {}) == ([], ["one"])
    assert not work.folder.exists()


def test_attempts_keep_errors_of_the_user_and_no_others():
    problems = []
    attempt = collect_errors(problems)

    def wrong():
        raise UserError("weights.pt: no such file")

    assert attempt("FID", wrong) is None
    assert attempt("QS", lambda: 3) == 3
    assert problems == ["FID: weights.pt: no such file"]
    with pytest.raises(ZeroDivisionError):
        attempt("bug", lambda: 1 // 0)


def test_the_limit(work):
    assert work.some(range(5)) == [0, 1]
    assert RunContext(work.folder, None, 1, work.device, work.share).some(range(5)) == [0, 1, 2, 3, 4]


def test_the_commit(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown: no git", commit())
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown: no git"
