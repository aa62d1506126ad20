"""scripts/sample.py from the command line to its files, with models of 16 pixels."""

import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.cli.pixel_models import write_models
from tests.refusals import assert_refused


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("pixels"))


@pytest.fixture
def sample(tmp_path, models, run_script):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""

    def run(*flags: object, model: str = "pixel", **changes: object) -> tuple[int, str, str]:
        defaults = {
            "config": models / f"{model}.yaml",
            "ckpt": models / f"{model}.safetensors",
            "outdir": tmp_path / "out",
            "n_samples": 3,
            "steps": 2,
            "seed": 7,
            "device": "cpu",
        }
        named = [text for name, value in {**defaults, **changes}.items() for text in (f"--{name}", str(value))]
        done = run_script("sample.py", *named, *flags)
        return done.returncode, done.stdout, done.stderr

    return run


def test_what_is_written_and_said(sample, tmp_path):
    code, out, err = sample(precision="full")
    assert (code, err) == (0, "")
    names = {"grid-0000.png"} | {f"samples/0000{k}.png" for k in range(3)}
    assert written(tmp_path / "out") == names
    told, *paths = out.splitlines()
    assert told == "3 pictures of 16x16, ddpm, 2 steps, precision full, cpu"
    assert {str(Path(line).relative_to(tmp_path / "out")) for line in paths} == names
    pictures = [pixels(tmp_path / f"out/samples/0000{k}.png") for k in range(3)]
    assert {picture.shape for picture in pictures} == {(16, 16, 3)}
    grid = pixels(tmp_path / "out/grid-0000.png")  # two by two
    assert np.array_equal(grid[2:18, 20:36], pictures[1]) and np.array_equal(grid[20:36, 2:18], pictures[2])


def test_picture_k_has_seed_plus_k_whatever_the_batch(sample, tmp_path, models):
    assert sample(batch=2)[0] == 0
    assert sample(outdir=tmp_path / "whole", batch=3)[0] == 0
    assert sample(outdir=tmp_path / "alone", n_samples=1, seed=9)[0] == 0
    for k in range(3):
        settings = read_settings(tmp_path / f"out/samples/0000{k}.png")
        expected = {"seed": 7 + k, "n_samples": 1, "steps": 2, "sampler": "ddpm", "H": 16, "W": 16}
        assert {**expected, "ckpt": [str(models / "pixel.safetensors")]}.items() <= settings.items()
        one, two = (pixels(tmp_path / folder / f"samples/0000{k}.png") for folder in ("out", "whole"))
        assert np.abs(one - two).max() <= 1
    assert np.abs(pixels(tmp_path / "alone/samples/00000.png") - one).max() <= 1
    assert read_settings(tmp_path / "out/grid-0000.png")["n_samples"] == 3


def test_nothing_is_written_over(sample, tmp_path):
    for _ in range(2):
        sample(n_samples=1)
    assert written(tmp_path / "out") == {
        "grid-0000.png", "grid-0001.png", "samples/00000.png", "samples/00001.png"}  # fmt: skip


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver"])
def test_other_samplers(sample, tmp_path, sampler):
    assert sample(sampler=sampler, n_samples=1)[::2] == (0, "")
    assert read_settings(tmp_path / "out/samples/00000.png")["sampler"] == sampler


def test_classes_and_a_classifier(sample, tmp_path, models):
    guide = {"classifier": models / "classifier.safetensors", "classifier_config": models / "classifier.yaml"}
    runs = {
        "one": {"class_id": 1},
        "two": {"class_id": 2},
        "guided": {"class_id": 1, **guide, "classifier_scale": 50},
    }
    made = []
    for name, flags in runs.items():
        assert sample(model="classes", n_samples=1, outdir=tmp_path / name, **flags)[::2] == (0, "")
        made.append(pixels(tmp_path / name / "samples/00000.png"))
        assert read_settings(tmp_path / name / "samples/00000.png")["class_id"] == flags["class_id"]
    assert (made[0] != made[1]).any() and (made[0] != made[2]).any()


BAD = {
    "class missing": ({"model": "classes"}, ("class_id", 0, 4)),
    "class too high": ({"model": "classes", "class_id": 5}, ("class_id", 5, 0, 4)),
    "class of none": ({"class_id": 0}, ("class_id", 0)),
    "samples": ({"n_samples": 0}, ("n_samples", 0)),
    "batch": ({"batch": 0}, ("--batch", 0)),
    "steps": ({"steps": 0}, ("steps", 0)),
    "too many steps": ({"steps": 1001}, ("steps", 1001, 1000)),
    "seeds": ({"seed": 2**63 - 2}, ("seed", 9223372036854775806, 9223372036854775805)),
    "eta no number": ({"eta": "nan", "sampler": "ddim"}, ("eta", "nan")),
    "scale of no classifier": ({"classifier_scale": 2}, ("--classifier_scale", "--classifier")),
    "sampler": ({"sampler": "euler"}, ("sampler", "euler")),
    "sampler of latents": ({"sampler": "plms"}, ("sampler", "plms")),
    "eta without ddim": ({"eta": 0.5}, ("eta", 0.5, "ddim")),
    "settings": ({"settings": "theirs"}, ("sample", "theirs")),
    "another kind of model": ({"config": "TEXT/text.yaml"}, "LatentDiffusion"),
    "classifier": ({"classifier_config": "MODEL/pixel.yaml", "class_id": 1}, "PixelDiffusion"),
    "weights missing": ({"ckpt": "none.pt"}, "none.pt"),
    "weights of classes": ({"ckpt": "MODEL/classes.safetensors"}, "classes.safetensors"),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(sample, models, text_model_files, tmp_path, flags, wanted):
    places = {"MODEL/": f"{models}/", "TEXT/": f"{text_model_files}/"}
    named = {
        name: re.sub("|".join(places), lambda found: places[found[0]], value) if isinstance(value, str) else value
        for name, value in flags.items()
    }
    assert_refused(sample(**named), wanted)
    assert not (tmp_path / "out").exists()


def test_too_many_steps_are_refused_before_weights_are_read(sample, monkeypatch):
    monkeypatch.setattr("ldm.checkpoints.open.load_into", lambda *_: pytest.fail("loaded"))
    assert sample(steps=2000)[0] == 2


def test_the_classifier_of_a_conf_is_used(sample, tmp_path, models):
    """A conf of the original's becomes such a config."""
    config = OmegaConf.load(models / "classes.yaml")
    config.classifier, config.repaint = str(models / "classifier.safetensors"), {"classifier_scale": 50.0, "steps": 9}
    OmegaConf.save(config, tmp_path / "conf.yaml")
    given = {"model": "classes", "n_samples": 1, "class_id": 1, "classifier_config": models / "classifier.yaml"}
    runs = {
        "conf": {"config": tmp_path / "conf.yaml"},
        "mild": {"config": tmp_path / "conf.yaml", "classifier_scale": 0},
    }
    runs["flags"] = {"classifier": config.classifier, "classifier_scale": 50}
    for name, flags in runs.items():
        assert sample(**given, **flags, outdir=tmp_path / name)[::2] == (0, "")
    conf, mild, flags = (pixels(tmp_path / name / "samples/00000.png") for name in runs)
    assert np.array_equal(conf, flags) and (conf != mild).any()
    said = read_settings(tmp_path / "conf/samples/00000.png")
    assert {"classifier": config.classifier, "classifier_scale": 50, "steps": 2}.items() <= said.items()
