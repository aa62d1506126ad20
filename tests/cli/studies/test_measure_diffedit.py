import json

import pytest
from PIL import Image

from tests.refusals import assert_refused
from tests.tiny import write_model
from tests.toyworld.models import CAPTION_CONFIG, tiny_caption_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tensors = tiny_caption_model().state_dict()
    config, weights = write_model(tmp_path_factory.mktemp("model"), {"model": CAPTION_CONFIG}, tensors)
    return ["--model", config, "--ckpt", weights, "--device", "cpu"]


FAST = ["--steps", 4, "--n_maps", 2, "--seed", 5]


def test_the_figures_of_three_scenes(run_script, model, tmp_path):
    done = run_script(
        "measure_diffedit.py", *model, *FAST, "--count", 3, "--batch", 2, "--study", 2, "--encode_ratio", 0.5,
        "--out", "out", "--plot", "docs/plot.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["scenes"] == {"count": 3, "seed": 5, "size": 64} and report["source"] == "caption"
    assert {name: report["settings"][name] for name in ("steps", "n_maps", "encode_ratio")} == {
        "steps": 4,
        "n_maps": 2,
        "encode_ratio": 0.5,
    }
    for change in ("colour", "class"):
        found, study = report["changes"][change], report["study"][change]
        assert found["exact"] == "3 of 3"
        assert found["figures"]["real/class"][0] == 1 and found["figures"][f"unchanged/{change}"][0] == 0
        assert study["count"] == 2
        assert {method: len(row) for method, row in study["methods"].items()} == dict.fromkeys(study["methods"], 6)
        with Image.open(tmp_path / f"out/{change}.png") as grid:
            assert grid.width == 3 * (4 * 192 + 16) - 16
    assert (tmp_path / "docs/plot.png").exists()
    assert "| SDEdit | 0.9 |" in done.stdout and "edits per second" in done.stdout

    again = run_script("measure_diffedit.py", *model, *FAST, "--count", 3, "--batch", 3, "--encode_ratio", 0.5,
                       "--changes", "class", "--out", "again")  # fmt: skip
    assert again.returncode == 0, again.stderr
    figures = json.loads((tmp_path / "again/report.json").read_text())["changes"]["class"]["figures"]
    for name in ("caption/iou", "empty/iou", "inversion"):
        assert figures[name] == pytest.approx(report["changes"]["class"]["figures"][name], abs=1e-2)


@pytest.mark.parametrize(
    "flags, wanted",
    [
        (["--count", 0], "--count"),
        (["--study", 1], ("--study", 1, 2)),
        (["--encode_ratio", 1.5], ("encode_ratio", 1.5)),
        (["--threshold", 1], ("threshold", 1)),
        (["--size", 60], ("--size", 60, 8)),
        (["--out", __file__], (__file__,)),
        (["--judge", "toyworld_jugde"], "toyworld_jugde"),
        (["--ckpt", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_bad_input_is_one_line(run_script, model, tmp_path, flags, wanted):
    done = run_script("measure_diffedit.py", *model, *flags)
    assert_refused(done, wanted, stdout=True)
    assert not (tmp_path / "outputs").exists()
