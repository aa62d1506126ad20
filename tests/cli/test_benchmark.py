import json

import pytest
from omegaconf import OmegaConf

from tests.benchmark.bench import IDS, write_bench
from tests.benchmark.conftest import MISSING, networks  # noqa: F401 (a fixture)
from tests.refusals import assert_mentions, assert_refused


@pytest.fixture(scope="module")
def config(tmp_path_factory, model_files):
    """A config of someone's own, over the shipped one."""
    root = write_bench(tmp_path_factory.mktemp("bench"))
    own = {"data": root, "reference": root / "test_set_GT", "gmm": root / "gmm.safetensors"}
    model = dict(zip(("config", "checkpoint"), map(str, model_files), strict=True))
    rows = {"original": {"steps": 2}, "default": {"steps": 2}}
    params = {**{key: str(value) for key, value in own.items()}, "model": model, "rows": rows, "resamples": 10}
    OmegaConf.save({"include": "benchmark/cocoee.yaml", "params": params}, root / "mine.yaml")
    return root / "mine.yaml"


def test_a_benchmark_and_its_report(run_script, config, tmp_path):
    result = run_script("benchmark.py", "--config", config, "--device", "cpu", "seed=7")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "outputs" / "benchmark" / "mine"
    assert result.stdout.split() == [
        f"outputs/benchmark/mine/{name}" for name in ("report.md", "report.json", "figures.png")
    ]
    about = json.loads((folder / "report.json").read_text(encoding="utf-8"))["about"]
    assert about["overrides"] == ["seed=7"] and about["settings"]["seed"] == 7
    assert about["settings"]["rows"]["original"] == {
        "edit": "original",
        "sampler": "plms",
        "guidance_scale": 5.0,
        "steps": 2,
    }


def test_what_failed_is_told_line_by_line_and_by_the_exit_code(run_script, config, tmp_path):
    missing = f"extractors.inception={MISSING}"
    result = run_script("benchmark.py", "--config", config, "--out", tmp_path / "out", "--limit", 4, missing)
    assert result.returncode == 4
    first, last = result.stderr.splitlines()[-2:]
    assert first.startswith("error: ") and last.startswith("error: ")
    assert_mentions(first, "inception", MISSING)
    assert_mentions(last, 1)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert f"**Partial: 4 of {len(IDS)} items.**" in report
    assert f"**Failed:** inception: {MISSING}" in report


@pytest.mark.parametrize(
    "flags, wanted",
    [
        (["--config", "toyworld"], ("toyworld", "configs/benchmark")),
        (["--config", "benchmark/cocoee", "sed=1"], ("sed", "seed")),
        (["--config", "benchmark/cocoee"], "test_bench"),
        (["--config", "benchmark/repaint", "rows.paper.edit=no"], ("repaint", False)),
        (["--config", "benchmark/none"], "benchmark/none"),
    ],
)
def test_wrong_input_is_one_line(run_script, flags, wanted):
    result = run_script("benchmark.py", "--device", "cpu", *flags)
    assert_refused(result, wanted)
