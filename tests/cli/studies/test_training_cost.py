"""scripts/studies/training_cost.py: what it prints, and what it refuses."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.refusals import assert_refused

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "studies" / "training_cost.py"


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_it_tells_parameters_arithmetic_hours_and_memory(monkeypatch, capsys):
    run(monkeypatch, "--base", "configs/train/photos.yaml", "--tflops", "1", "--mfu", "0.5", "data.params.batch_size=2",
        "trainer.max_steps=100000000")  # fmt: skip
    text = capsys.readouterr().out
    assert "not measured" in text
    assert "7.5 M trained" in text
    tflop = float(re.search(r"([\d.e-]+) TFLOP a sample", text)[1])
    hours = float(
        re.search(r"GPU-hours +([\d.,]+) for 200,000,000 samples at 0.5 of 1 TFLOP/s", text)[1].replace(",", "")
    )
    assert hours == pytest.approx(tflop * 2e8 / 0.5 / 3600, rel=0.01)
    assert re.search(r"memory +\d{3}\.\d MB weights, gradients, AdamW, averages", text)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--mfu", "2"], ("--mfu", 2.0)),
        (["--tflops", "0"], ("--tflops", 0.0)),
        (["emma=1"], ("emma", "ema")),
    ],
)
def test_bad_arguments_are_one_line(monkeypatch, capsys, arguments, wanted):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--base", "configs/train/photos.yaml", *arguments)
    assert_refused((stop.value.code, *capsys.readouterr()), wanted)


def test_trainings_of_another_kind_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "--base", "configs/train/toyworld_clip.yaml")
    assert_refused((stop.value.code, *capsys.readouterr()), "ContrastiveTraining")
