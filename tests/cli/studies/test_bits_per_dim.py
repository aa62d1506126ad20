"""scripts/studies/bits_per_dim.py from the command line to its file, with models of 16 pixels."""

import json

import pytest
import torch

from ldm.checkpoints.open import load
from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.schedule import strided_timesteps
from ldm.diffusion.variance import VARIANCES
from ldm.diffusion.vlb import bound
from ldm.toyworld.datasets import ToyScenes
from ldm.utils.random import NoiseSource, key_seed
from tests.cli.pixel_models import write_models
from tests.refusals import assert_line, assert_mentions, assert_refused
from tests.utils.pictures import photo


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("pixels"))


@pytest.fixture
def bits(run_script, models, tmp_path):
    """Run the script; returns its exit code, stdout, stderr and report, if there is one."""

    def run(*flags: object, model: str = "pixel"):
        named = ["--config", models / f"{model}.yaml", "--ckpt", models / f"{model}.safetensors", "--device", "cpu"]
        done = run_script("bits_per_dim.py", *named, "--steps", 4, "--out", "out/bits.json", *flags)
        file = tmp_path / "out" / "bits.json"
        return done.returncode, done.stdout, done.stderr, json.loads(file.read_text()) if file.exists() else None

    return run


def test_the_bound_of_fresh_scenes(bits, models):
    code, out, err, report = bits("--count", 3, "--batch", 2, "--seed", 7)
    assert (code, err) == (0, "")
    model = load(models / "pixel.yaml", models / "pixel.safetensors")
    denoise = Denoiser(model.unet, model.schedule, clip_x0=True, keep_variance=True)
    scenes = ToyScenes(3, 16, seed=7)
    x0, noise = (
        torch.stack([scenes[i]["image"] for i in range(3)]),
        NoiseSource(key_seed(7, "bound", i) for i in range(3)),
    )
    expected = bound(denoise, x0, model.schedule, strided_timesteps(4), "learned_range", noise.randn)
    figures = report["bits per dimension"]
    for name in ("total", "prior", "decoder"):
        values = getattr(expected, name).double()
        assert figures[name] == pytest.approx([values.mean().item(), values.std().item() / 3**0.5], rel=1e-4)
    assert report["terms"] == pytest.approx(expected.terms.mean(0).tolist(), rel=1e-4)
    assert (report["count"], report["steps"], report["seed"], report["variance"]) == (3, 4, 7, "learned_range")
    mean, error = figures["total"]
    assert f"total   {mean:10.4f} ± {error:.4f}" in out and "3 pictures, 4 timesteps" in out


def test_a_folder_without_what_cannot_be_read(bits, tmp_path):
    folder = tmp_path / "pictures" / "deep"
    folder.mkdir(parents=True)
    for name, size in (("b.png", (16, 16)), ("c.jpg", (40, 24))):
        photo(*size).save(folder / name)
    (folder / "a.png").write_bytes(b"none")
    code, _, err, report = bits("--data", tmp_path / "pictures", "--count", 9)
    assert code == 0 and report["count"] == 2
    assert_line(err.removesuffix("\n"), "a.png")


def test_all_pictures_are_of_the_class_told(bits):
    found = []
    for class_id in (0, 3):
        code, _, err, report = bits("--count", 1, "--class_id", class_id, model="classes")
        assert (code, err) == (0, "")
        found.append(report["bits per dimension"]["total"][0])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "flags, model, wanted",
    [
        (["--count", 0], "pixel", ("--count", 0)),
        (["--steps", 0], "pixel", ("steps", 0, 1000)),
        (["--steps", 1001], "pixel", ("steps", 1001)),
        (["--data", "nowhere"], "pixel", "nowhere"),
        ([], "classes", ("class_id", 0, 4)),
        (["--class_id", 1], "pixel", ("class_id", 1)),
        ([], "classifier", "Classifier"),
        (["--out", "/dev/null/bits.json"], "pixel", "/dev/null"),
        (["--out", "."], "pixel", "--out"),
        (["--variance", "large"], "pixel", ("--variance", "large")),
        (["--variance", "learned_range"], "plain", (3, 6, "learned_range")),
    ],
)
def test_bad_input_is_one_line(bits, flags, model, wanted):
    *done, report = bits(*flags, model=model)
    assert_refused(tuple(done), wanted)
    assert report is None


def test_one_picture_has_no_standard_error(bits):
    code, out, err, report = bits("--count", 1)
    value, error = report["bits per dimension"]["total"]
    assert (code, err, error) == (0, "", None) and f"total   {value:10.4f}\n" in out


def test_another_variance_is_another_bound(bits):
    found = {}
    for variance in VARIANCES:
        code, out, err, report = bits("--count", 1, "--variance", variance)
        assert (code, err) == (0, "") and f"4 timesteps, {variance}: bits" in out
        assert report["variance"] == variance
        found[variance] = report["bits per dimension"]["total"][0]
    assert len(set(found.values())) == len(VARIANCES)
    assert bits("--count", 1)[3]["bits per dimension"]["total"][0] == found["learned_range"]  # the model's own


def test_where_the_figures_cannot_go_is_told_before_the_model_is_read(bits, monkeypatch):
    monkeypatch.setattr("ldm.checkpoints.open.load", lambda *_, **__: pytest.fail("opened"))
    for out in ("/dev/null/bits.json", "."):
        assert bits("--out", out)[0] == 2


def test_a_folder_of_nothing_readable(bits, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"none")
    code, _, err, report = bits("--data", tmp_path / "broken")
    assert code == 2 and report is None
    assert_mentions(err.splitlines()[-1], tmp_path / "broken", 1)
