import json
import shutil

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.config import load_config
from ldm.training.loop.fit import write_config
from ldm.utils.errors import UserError
from ldm.utils.project import ROOT
from tests.checkpoints.guided import bare, config
from tests.refusals import assert_mentions, assert_refused


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of 16 x 16 pixels, and in `classes.yaml` one that knows classes."""
    folder = tmp_path_factory.mktemp("model")
    for name, made in {"tiny": config(), "classes": config(num_classes=5)}.items():
        OmegaConf.save(made, folder / f"{name}.yaml")
    save_tensors(folder / "tiny.safetensors", bare(config()))
    return folder


@pytest.fixture
def flags(model):
    return ["--model", model / "tiny.yaml", "--ckpt", model / "tiny.safetensors", "--device", "cpu", "--seed", 5]


WALK = ["--steps", 4, "--jump_length", 2, "--jump_n_sample", 2]


def test_the_figures_of_three_scenes(run_script, flags, tmp_path):
    pytest.importorskip("cv2")
    done = run_script("measure_repaint.py", *flags, *WALK, "--count", 3, "--batch", 2, "--masks", "wide", "half",
                      "--out", "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["scenes"] == {"count": 3, "seed": 5, "size": 16} and report["precision"] == "full"
    assert list(report["masks"]) == ["wide", "half"]
    for kind, found in report["masks"].items():
        assert found["calls"] == {"RePaint": 6, "no resampling": 4} and found["exact"] == "6 of 6"
        assert list(found["figures"]) == ["RePaint", "no resampling", "Telea", "Navier-Stokes"]
        assert found["difference"].keys() == found["figures"]["RePaint"].keys()
        for name, (value, _) in found["difference"].items():
            ours, once = (found["figures"][method][name][0] for method in ("RePaint", "no resampling"))
            assert value == pytest.approx(ours - once)
        assert f"| {kind} | Telea | - |" in done.stdout
    assert report["masks"]["half"]["covered"] == 0.5
    assert report["better"] and all(counts["of"] == 2 for counts in report["better"].values())
    with Image.open(tmp_path / "out/examples.png") as grid:
        assert grid.width == 3 * (6 * 128 + 16) - 16

    again = run_script("measure_repaint.py", *flags, *WALK, "--count", 3, "--batch", 3, "--masks", "half",
                       "--out", "again")  # fmt: skip
    assert again.returncode == 0, again.stderr
    figures = json.loads((tmp_path / "again/report.json").read_text())["masks"]["half"]["figures"]
    for method, values in report["masks"]["half"]["figures"].items():
        for name, value in values.items():
            assert figures[method][name] == pytest.approx(value, rel=1e-2)


def test_without_opencv_its_methods_are_left_out(run_script, flags, tmp_path, monkeypatch):
    from ldm.studies import hole_filling

    monkeypatch.setattr(hole_filling, "find_spec", lambda name: None)
    done = run_script("measure_repaint.py", *flags, *WALK, "--count", 2, "--masks", "half")
    assert done.returncode == 0, done.stderr
    assert_mentions(done.stderr, "note", "OpenCV")
    report = json.loads((tmp_path / "outputs/measure_repaint/report.json").read_text())
    assert list(report["masks"]["half"]["figures"]) == ["RePaint", "no resampling"]


@pytest.mark.parametrize(
    "flags, told",
    [
        ([], "ddpm, 50 steps, jump 5, 5 times"),
        (["--steps", 20], "ddpm, 20 steps, jump 5, 5 times"),
        (["--edit", "default"], "ddpm, 250 steps, jump 10, 10 times"),
        (["--edit", "fast"], "ddim, 20 steps, jump 2, 5 times"),
        (["--edit", "fast", "--jump_length", 3, "--sampler", "ddpm"], "ddpm, 20 steps, jump 3, 5 times"),
    ],
)
def test_an_edit_says_the_walk_where_no_flag_does(run_script, model, monkeypatch, flags, told):
    def stop(*_):
        raise UserError("far enough")

    monkeypatch.setattr("ldm.studies.hole_filling.fill", stop)
    weights = ["--model", model / "tiny.yaml", "--ckpt", model / "tiny.safetensors", "--device", "cpu"]
    done = run_script("measure_repaint.py", *weights, "--count", 2, "--masks", "half", *flags)
    assert f"px: {told};" in done.stdout and "far enough" in done.stderr


def test_a_training_of_clip_can_measure(run_script, flags, tmp_path):
    write_config(load_config("train/toyworld_clip"), tmp_path / "config.yaml")
    shutil.copy(ROOT / "pretrained_models/toyworld/clip.safetensors", tmp_path / "weights.safetensors")
    found = []
    for clip in ("toyworld_clip", tmp_path / "config.yaml"):
        done = run_script("measure_repaint.py", *flags, *WALK, "--clip", clip, "--count", 2, "--masks", "half")
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "outputs/measure_repaint/report.json").read_text())["masks"]["half"])
    assert found[0]["figures"] == found[1]["figures"]


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        (["--count", 0], "--count"),
        (["--count", 1], ("--count", 1, 2)),
        (["--edit", "fast", "--steps", 1001], ("steps", 1001, 1000)),
        (["--masks", "wide", "whole"], "whole"),
        (["--steps", 0], ("steps", 0)),
        (["--jump_length", 50], ("jump_length", 50)),
        (["--sampler", "plms"], ("sampler", "plms")),
        (["--eta", 0.5], ("eta", 0.5, "ddim")),
        (["--size", 15], ("--size", 15, 2)),
        (["--out", __file__], (__file__,)),
        (["--clip", "toyworld_clop"], "toyworld_clop"),
        (["--ckpt", "missing.safetensors"], "missing.safetensors"),
        (["--lpips", "missing.pth"], "missing.pth"),
        (["--model", "classes.yaml"], "class_id"),
    ],
)
def test_bad_input_is_one_line(run_script, flags, model, tmp_path, wrong, wanted):
    wrong = [model / word if word == "classes.yaml" else word for word in wrong]
    done = run_script("measure_repaint.py", *flags, *wrong)
    assert_refused(done, wanted, stdout=True)
    assert not (tmp_path / "outputs").exists()
