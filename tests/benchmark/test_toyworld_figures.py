"""scripts/studies/measure_toyworld.py and scripts/studies/sampler_study.py, from the command line to their files."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.utils.png import read_settings
from tests.refusals import assert_refused
from tests.tiny import write_model

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "studies"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config, weights = write_model(tmp_path_factory.mktemp("model"))
    return ["--model", config, "--ckpt", weights, "--device", "cpu"]


@pytest.fixture
def call(model, monkeypatch, capfd):
    """Run a script in this process; returns its exit code, stdout and stderr."""

    def run(script: str, *flags: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, [*model, *flags])])
        capfd.readouterr()
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
            code = 0
        except SystemExit as exit:
            code = exit.code
        return code, *capfd.readouterr()

    return run


def test_the_figures_of_four_scenes(call, tmp_path):
    flags = ["--count", 4, "--seed", 5, "--steps", 2, "--sampler", "ddim", "--guidance_scale", 3]
    code, out, err = call("measure_toyworld.py", *flags, "--batch", 3, "--out", tmp_path / "a")
    assert code == 0, err
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    chosen = {"sampler": "ddim", "steps": 2, "guidance_scale": 3, "composite": "feather"}
    assert {key: report["settings"][key] for key in chosen} == chosen
    assert report["scenes"] == {"count": 4, "seed": 5}
    assert report["exact"] == "4 of 4"
    assert report["chance"] == {"class": 1 / 10, "colour": 1 / 8, "pattern": 1 / 4}
    assert report["figures"]["real/all"][0] >= 0.75  # the things as drawn; the tiny model itself is untrained
    heads = ("class", "colour", "pattern", "all")
    answers = {f"{row}/{head}" for row in ("edit", "real", "round trip") for head in heads}
    assert set(report["figures"]) == answers | {"background", "background round trip"}
    assert report["pooled dB"].keys() == {"background", "background round trip"}
    for name, pooled in report["pooled dB"].items():
        assert pooled <= report["figures"][name][0]
    share, error = report["figures"]["real/class"]
    assert f"{100 * share:.1f} ± {100 * error:.1f}" in out

    with Image.open(tmp_path / "a" / "examples.png") as sheet:
        assert sheet.size == (4 * (4 * 256 + 16) - 16, 256)
        mask = np.asarray(sheet)[:, 256:512]
    assert mask.min() == 0 and mask.max() == 255
    assert read_settings(tmp_path / "a" / "examples.png") == report

    call("measure_toyworld.py", *flags, "--batch", 2, "--out", tmp_path / "b")
    again = json.loads((tmp_path / "b" / "report.json").read_text())["figures"]
    assert {name: pytest.approx(value, abs=1e-3) for name, value in again.items()} == report["figures"]


def test_a_study_makes_its_files_and_goes_on(call, tmp_path):
    flags = ["--count", 3, "--steps", 2, 3, "--reference", 3, "--repeats", 2, "--scales", 1, 2, "--batch", 2]
    code, out, err = call("sampler_study.py", *flags, "--out", tmp_path / "new" / "study")
    assert code == 0, err
    found = re.search(r"the cheapest within seed noise: (\w+) (\d) steps, guidance 5, seed 0\n", out)
    assert found, out
    held = json.loads((tmp_path / "new" / "study.json").read_text())["results"]
    compared = {
        f"{sampler} {n} steps, guidance 5, seed 0" for sampler in ("ddim", "plms", "dpm_solver") for n in (2, 3)
    }
    swept = {f"{found[1]} {found[2]} steps, guidance {scale}, seed 0" for scale in (1, 2)}
    assert compared | swept | {"plms 3 steps, guidance 5, seed 1"} <= set(held)
    with Image.open(tmp_path / "new" / "study.png") as plot:
        assert plot.width == 1200
        assert len(plot.convert("RGB").getcolors(2**20)) > 50

    text = (tmp_path / "new" / "study.json").read_text()
    code, again, _ = call("sampler_study.py", *flags, "--out", tmp_path / "new" / "study")
    assert code == 0
    assert (tmp_path / "new" / "study.json").read_text() == text
    assert out.endswith(again) and " s\n" not in again  # the same tables, and nothing was made


@pytest.mark.parametrize(
    "script, flags, wanted",
    [
        ("measure_toyworld.py", ["--count", 0], ("--count", 0)),
        ("measure_toyworld.py", ["--sampler", "euler"], ("sampler", "euler", "ddim")),
        ("measure_toyworld.py", ["--out", __file__], (__file__,)),
        ("measure_toyworld.py", ["--judge", "toyworld_jugde"], "toyworld_jugde"),
        ("sampler_study.py", ["--repeats", 1], ("--repeats", 1)),
        ("sampler_study.py", ["--steps", 0], ("steps", 0)),
        ("sampler_study.py", ["--out", __file__ + "/study"], (__file__,)),
    ],
)
def test_bad_input_is_one_line(call, tmp_path, script, flags, wanted):
    out = [] if "--out" in flags else ["--out", tmp_path / "out" / "study"]
    assert_refused(call(script, "--count", 1, *out, *flags), wanted, stdout=True)
    assert not (tmp_path / "out").exists()
