"""scripts/studies/measure_box_mask.py, from the command line to its files."""

import json

import pytest
from PIL import Image

from ldm.utils.png import read_settings
from tests.refusals import assert_refused


@pytest.fixture
def call(run_script, model_files):
    config, weights = model_files
    model = ["--model", config, "--ckpt", weights, "--device", "cpu"]
    return lambda *flags: run_script("measure_box_mask.py", *model, "--seed", 5, "--n_maps", 1, *flags)


def test_the_figures_of_three_boxes(call, tmp_path):
    done = call("--count", 3, "--batch", 2, "--threshold", 0.2, "--out", "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["scenes"] == {"count": 3, "seed": 5}
    assert report["mask"] == {"n_maps": 1, "strength": 0.5, "threshold": 0.2, "clamp": 3, "seed": 42}
    assert report["figures"]["box/share"][0] == 1 > report["figures"]["inferred/share"][0] > 0
    assert report["figures"]["box/exact"][0] == report["figures"]["inferred/exact"][0] == 1
    assert "the whole box" in done.stdout and "3 boxes, scenes of seed 5, cpu" in done.stdout
    with Image.open(tmp_path / "out/examples.png") as grid:
        assert grid.size == (2 * (6 * 128 + 16) - 16, 2 * 128 + 8)
    assert read_settings(tmp_path / "out/examples.png") == report


@pytest.mark.parametrize(
    "flags, wanted",
    [
        (["--count", 0], ("--count", 0)),
        (["--threshold", 1], ("threshold", 1)),
        (["--out", __file__], (__file__,)),
        (["--judge", "toyworld_jugde"], "toyworld_jugde"),
    ],
)
def test_bad_input_is_one_line(call, tmp_path, flags, wanted):
    done = call(*flags)
    assert_refused(done, wanted, stdout=True)
    assert not (tmp_path / "outputs").exists()
