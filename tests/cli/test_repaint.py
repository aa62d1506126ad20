"""scripts/repaint.py from the command line to its files, with models of 16 pixels and of latents."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image, ImageSequence

from ldm.samplers.repaint import network_calls
from ldm.utils.holes import hole_mask
from ldm.utils.mask import mask_picture
from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.cli.pixel_models import write_models
from tests.compat.test_repaint import faces
from tests.refusals import assert_line, assert_mentions, assert_refused
from tests.samplers.walks import walk
from tests.utils.pictures import mask, photo

SIZE = (20, 14)  # no multiples of the model's
CALLS = network_calls(walk(4, 2, 2))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("pixels"))


@pytest.fixture
def repaint(tmp_path, models, run_script):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""
    folder = tmp_path / "in"
    folder.mkdir()
    photo(*SIZE).save(folder / "scene.png")
    mask(*SIZE).save(folder / "mask.png")

    def run(*flags: object, model: str = "pixel", **changes: object) -> tuple[int, str, str]:
        defaults = {
            "image": folder / "scene.png",
            "mask_path": folder / "mask.png" if "mask_type" not in changes else None,
            "outdir": tmp_path / "out",
            "config": models / f"{model}.yaml" if "conf_path" not in changes else None,
            "ckpt": models / f"{model}.safetensors",
            "steps": 4,
            "jump_length": 2,
            "jump_n_sample": 2,
            "seed": 3,
            "device": "cpu",
        }
        given = {name: value for name, value in {**defaults, **changes}.items() if value is not None}
        named = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        done = run_script("repaint.py", *named, *flags)
        return done.returncode, done.stdout, done.stderr

    return run


def test_what_is_written_and_said(repaint, tmp_path):
    code, out, err = repaint(n_samples=2, precision="full")
    assert (code, err) == (0, "")
    names = {f"results/scene_{seed}.png" for seed in (3, 4)} | {"grid/grid-scene_3.png"}
    names |= {f"source/scene_3_{kind}.png" for kind in ("image", "mask", "masked")}
    assert written(tmp_path / "out") == names
    told, expected, *paths = out.splitlines()
    way = f"4 steps, jump length 2, resampling 2: {CALLS} network calls"
    assert told == f"20x14, ddpm, {way}, precision full, cpu"
    total, unit, each = re.fullmatch(r"expected time: (\S+) (s) \((\S+) s a call\)", expected).groups()
    assert float(total) == pytest.approx(CALLS * float(each), abs=0.06)
    assert {str(Path(line).relative_to(tmp_path / "out")) for line in paths} == names

    scene, hole = np.asarray(photo(*SIZE)).astype(int), np.asarray(mask(*SIZE)) == 255
    results = [pixels(tmp_path / f"out/results/scene_{seed}.png") for seed in (3, 4)]
    for result in results:
        assert not (result != scene)[~hole].any() and (result != scene)[hole].any(-1).mean() > 0.9
    assert (results[0] != results[1])[hole].any()
    assert np.array_equal(pixels(tmp_path / "out/source/scene_3_mask.png") == 255, hole)
    assert (pixels(tmp_path / "out/source/scene_3_masked.png")[hole] == 128).all()


def test_the_picture_says_how_it_was_made_and_that_makes_it_again(repaint, tmp_path, models):
    flags = {"jump2_length": 2, "jump2_n_sample": 2, "jump3_length": 1, "jump3_n_sample": 2, "n_sample": 2}
    flags |= {"start_resampling": 3, "sampler": "ddim", "eta": 0.5, "feather": 1, "composite": "feather"}
    assert repaint(n_samples=2, **flags)[0] == 0
    settings = read_settings(tmp_path / "out/results/scene_4.png")
    expected = {**flags, "seed": 4, "n_samples": 1, "steps": 4, "jump_length": 2, "jump_n_sample": 2, "device": "cpu"}
    expected |= {"image": str(tmp_path / "in/scene.png"), "ckpt": [str(models / "pixel.safetensors")]}
    assert expected.items() <= settings.items()
    assert "mask_seed" not in settings and "class_id" not in settings
    assert repaint(seed=4, outdir=tmp_path / "again", **flags)[0] == 0
    one, two = (pixels(tmp_path / folder / "results/scene_4.png") for folder in ("out", "again"))
    assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize("kind", ["wide", "thin"])
def test_a_mask_is_drawn_from_its_seed(repaint, tmp_path, kind):
    assert repaint(mask_type=kind, mask_seed=5)[0] == 0
    drawn = pixels(tmp_path / "out/source/scene_3_mask.png")
    assert np.array_equal(drawn, mask_picture(hole_mask(kind, SIZE, 5)))
    settings = read_settings(tmp_path / "out/results/scene_3.png")
    assert {"mask_type": kind, "mask_seed": 5}.items() <= settings.items()
    repaint("--overwrite", mask_type=kind)
    assert read_settings(tmp_path / "out/results/scene_3.png")["mask_seed"] == 0


def test_a_mask_without_a_seed(repaint, tmp_path):
    assert repaint(mask_type="nn2")[0] == 0
    assert np.array_equal(pixels(tmp_path / "out/source/scene_3_mask.png"), mask_picture(hole_mask("nn2", SIZE)))
    assert "mask_seed" not in read_settings(tmp_path / "out/results/scene_3.png")


def test_an_inverted_mask(repaint, tmp_path):
    assert repaint("--invert_mask")[0] == 0
    hole = np.asarray(mask(*SIZE)) == 0
    changed = (pixels(tmp_path / "out/results/scene_3.png") != np.asarray(photo(*SIZE))).any(-1)
    assert not changed[~hole].any() and changed[hole].mean() > 0.9


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(film)]


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_the_process_as_an_animated_picture(repaint, tmp_path, crop):
    code, out, _ = repaint("--gif", n_samples=2, crop=crop)
    assert code == 0 and str(tmp_path / "out/process/scene_4.gif") in out
    for seed in (3, 4):
        shown = frames(tmp_path / f"out/process/scene_{seed}.gif")
        assert len(shown) in (CALLS + 1, CALLS + 2)  # the last that is predicted can be the result
        assert shown[0].shape == (14 * 12, 20 * 12, 3)
        corner = [frame[:36, :36] for frame in shown]  # is known
        assert all(np.abs(corner[0] - other).mean() < 12 for other in corner)
        middle = [frame[84, 120] for frame in shown]
        assert np.abs(middle[0] - 128).max() < 20  # blanked
        assert any((a != b).any() for a, b in pairwise(middle[1:]))
        result = pixels(tmp_path / f"out/results/scene_{seed}.png")
        assert np.abs(shown[-1][6::12, 6::12] - result).mean() < 12


def test_the_schedule_is_plotted_before_the_model_is_read(repaint, tmp_path):
    code, out, err = repaint("--plot_schedule", ckpt=tmp_path / "none.pt")
    assert_refused((code, out, err), "none.pt", stdout=True)
    assert out.splitlines() == [str(tmp_path / "out/schedule.png")]
    with Image.open(tmp_path / "out/schedule.png") as plot:
        assert plot.width > plot.height > 100
    assert repaint("--plot_schedule")[0] == 0 and (tmp_path / "out/results/scene_3.png").exists()


def test_another_class_is_another_picture(repaint, tmp_path):
    for class_id in (0, 4):
        assert repaint(model="classes", class_id=class_id, outdir=tmp_path / str(class_id))[::2] == (0, "")
    one, two = (pixels(tmp_path / f"{class_id}/results/scene_3.png") for class_id in (0, 4))
    assert (one != two).any()
    assert read_settings(tmp_path / "4/results/scene_3.png")["class_id"] == 4


@pytest.mark.parametrize("model", ["pixel", "classes"])
def test_a_classifier_guides(repaint, tmp_path, models, model):
    photo(16, 16).save(tmp_path / "in/square.png")
    flags = {"model": model, "image": tmp_path / "in/square.png", "mask_path": None, "mask_type": "half", "class_id": 2}
    flags |= {"classifier": models / "classifier.safetensors", "classifier_config": models / "classifier.yaml"}
    for scale in (0, 50):
        assert repaint(**flags, classifier_scale=scale, outdir=tmp_path / str(scale))[::2] == (0, "")
    without, guided = (pixels(tmp_path / f"{scale}/results/square_3.png") for scale in (0, 50))
    assert (without != guided).any()
    settings = read_settings(tmp_path / "50/results/square_3.png")
    assert {"classifier": str(models / "classifier.safetensors"), "classifier_scale": 50}.items() <= settings.items()


def test_in_latents_by_a_prompt_and_by_an_exemplar(repaint, tmp_path, text_model_files):
    photo(60, 40).save(tmp_path / "in/large.png")
    photo(30, 50, seed=7).save(tmp_path / "in/exemplar.png")
    common = {"image": tmp_path / "in/large.png", "mask_path": None, "mask_type": "half"}
    results = []
    for name, told in {
        "text": {"prompt": "a blue ball", "negative_prompt": "a mug"},
        "nine": {"reference_path": tmp_path / "in/exemplar.png"},
    }.items():
        config, ckpt = (text_model_files / f"{name}.{end}" for end in ("yaml", "safetensors"))
        code, _, err = repaint("--gif", **common, **told, config=config, ckpt=ckpt, outdir=tmp_path / name, scale=2.0)
        assert (code, err) == (0, "")
        results.append(pixels(tmp_path / name / "results/large_3.png"))
        assert np.array_equal(results[-1][:, :30], np.asarray(photo(60, 40))[:, :30])
        said = read_settings(tmp_path / name / "results/large_3.png")
        assert {key: said[key] for key in told} == {key: str(value) for key, value in told.items()}
        assert len(frames(tmp_path / name / "process/large_3.gif")) >= 3
    assert (results[0] != results[1]).any()


def test_alpha_of_the_scene_reaches_the_result(repaint, tmp_path):
    scene = photo(*SIZE)
    scene.putalpha(Image.linear_gradient("L").resize(SIZE))
    scene.save(tmp_path / "in/clear.png")
    assert repaint("--gif", image=tmp_path / "in/clear.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "out/results/clear_3.png")[..., 3], np.asarray(scene)[..., 3])


def test_a_warning_is_given_once(repaint, tmp_path, caplog):
    photo(40, 40).save(tmp_path / "in/large.png")
    assert repaint("--gif", image=tmp_path / "in/large.png", mask_path=None, mask_type="half")[0] == 0
    (message,) = caplog.messages
    assert_line(message, 16)


def conf(models: Path, **changes: object) -> dict:
    """A file of the original's for the small model."""
    network = {"num_channels": 32, "num_heads": 2, "num_head_channels": -1, "num_res_blocks": 1, "channel_mult": "1,2"}
    walk = {"t_T": 5, "n_sample": 1, "jump_length": 2, "jump_n_sample": 3}
    network |= {"attention_resolutions": "8", "image_size": 16, "model_path": str(models / "pixel.safetensors")}
    return faces(**network, timestep_respacing="5", schedule_jump_params=walk, **changes)


def test_a_conf_of_the_originals(repaint, tmp_path, models):
    OmegaConf.save(conf(models), tmp_path / "in/theirs.yml")
    given = {"ckpt": None, "steps": None, "jump_length": None}
    code, out, err = repaint(conf_path=tmp_path / "in/theirs.yml", **given, jump_n_sample=1)
    assert code == 0 and "5 steps, jump length 2, resampling 1: 5 network calls" in out  # flags are above the file
    assert err.count("theirs.yml") == 1 and "config" not in out
    settings = read_settings(tmp_path / "out/results/scene_3.png")
    assert {"config": str(tmp_path / "in/theirs.yml"), "steps": 5, "jump_length": 2}.items() <= settings.items()
    code, out, _ = repaint("--overwrite", conf_path=tmp_path / "in/theirs.yml", **given, jump_n_sample=None)
    assert code == 0 and "resampling 3: 13 network calls" in out


def test_an_edit_that_is_given_beats_a_conf(repaint, tmp_path, models):
    OmegaConf.save(conf(models), tmp_path / "in/theirs.yml")
    given = dict.fromkeys(("ckpt", "steps", "jump_length", "jump_n_sample")) | {"conf_path": tmp_path / "in/theirs.yml"}
    (tmp_path / "in/mine.yaml").write_text("{sampler: ddim, steps: 4, jump_length: 1, eta: 1.0}")
    for flags, told in (
        ({"edit": tmp_path / "in/mine.yaml"}, "20x14, ddim, 4 steps, jump length 1, resampling 3"),
        ({"edit": tmp_path / "in/mine.yaml", "sampler": "ddpm"}, "20x14, ddpm, 4 steps, jump length 1, resampling 3"),
        ({"edit": "default", "steps": 11, "jump_n_sample": 1}, "20x14, ddpm, 11 steps, jump length 10, resampling 1"),
    ):
        code, out, err = repaint("--overwrite", **{**given, **flags})
        assert code == 0 and out.startswith(told), err


def test_the_classifier_of_a_conf_is_used(repaint, tmp_path, models):
    guided = {"classifier_path": str(tmp_path / "classifier.pt"), "classifier_scale": 1.0}
    OmegaConf.save(conf(models, **guided), tmp_path / "in/theirs.yml")
    code, _, err = repaint(conf_path=tmp_path / "in/theirs.yml", ckpt=None, class_id=1)
    assert code == 2
    assert_mentions(err.splitlines()[-1], "classifier.pt")
