import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.editors.compose import distance
from ldm.utils.mask import parse_mask
from ldm.utils.png import read_settings
from ldm.utils.project import ROOT
from tests.cli.conftest import INFERENCE
from tests.cli.outputs import pixels, written
from tests.refusals import assert_line, assert_mentions, assert_refused
from tests.tiny import tiny_model
from tests.utils.pictures import mask, photo


def test_the_originals_command_and_folders(inference, tmp_path):
    code, out, err = inference("--plms", "--skip_grid", scale=5, precision="full")
    assert (code, err) == (0, "")
    sources = {f"source/scene_exemplar_3_{kind}.png" for kind in ("GT", "mask", "inpaint", "ref")}
    assert written(tmp_path / "out") == {"results/scene_exemplar_3.png"} | sources
    assert out.splitlines() == [
        "60x40, plms, 2 steps, guidance 5, precision full, cpu",
        str(tmp_path / "out" / "results" / "scene_exemplar_3.png"),
    ]
    result, scene = pixels(tmp_path / "out" / "results" / "scene_exemplar_3.png"), np.asarray(photo(60, 40))
    far = distance(parse_mask(mask(60, 40), (60, 40)), 9)[0, 0].numpy()
    assert not (result != scene)[far > 8].any()
    assert (result != scene)[far == 0].any(-1).mean() > 0.9
    assert np.array_equal(pixels(tmp_path / "out/source/scene_exemplar_3_GT.png"), scene)
    assert np.array_equal(pixels(tmp_path / "out/source/scene_exemplar_3_mask.png"), np.asarray(mask(60, 40)))


def test_every_flag_of_the_original_is_taken(inference, tmp_path):
    flags = ["--fixed_code", "--skip_save", "--n_imgs", 100, "--C", 4, "--f", 8, "--n_rows", 0]
    code, _, err = inference(*flags, ddim_eta=0.0, n_samples=1, n_iter=1, H=32, W=48, precision="autocast")
    assert code == 0
    assert_line(err.removesuffix("\n"), "note", "--n_imgs", "--n_rows", "--C", "--f")
    assert written(tmp_path / "out") == {"grid/grid-scene_exemplar_3.png"}


def test_samples_are_counted_through_all_batches(inference, tmp_path):
    inference("--skip_grid", n_samples=2, n_iter=2, seed=5)
    inference("--skip_grid", n_samples=1, seed=8, outdir=tmp_path / "single")
    results = {path.name for path in (tmp_path / "out" / "results").iterdir()}
    assert results == {f"scene_exemplar_{seed}.png" for seed in (5, 6, 7, 8)}
    single, batched = (pixels(tmp_path / folder / "results" / "scene_exemplar_8.png") for folder in ("single", "out"))
    assert np.abs(single - batched).max() <= 1


def test_the_picture_says_how_it_was_made_and_that_makes_it_again(inference, tmp_path, files, model_files):
    inference("--skip_grid", n_samples=2, sampler="ddim", ddim_eta=1.0, crop="auto", feather=2)
    settings = read_settings(tmp_path / "out" / "results" / "scene_exemplar_4.png")
    expected = {
        "seed": 4,
        "n_samples": 1,
        "sampler": "ddim",
        "steps": 2,
        "eta": 1.0,
        "crop": "auto",
        "feather": 2,
        "guidance_scale": 5.0,
        "image_path": str(files / "scene.png"),
        "mask_path": str(files / "mask.png"),
        "config": str(model_files[0]),
        "ckpt": [str(model_files[1])],
        "precision": "full",
        "device": "cpu",
    }
    assert expected.items() <= settings.items()
    again = {name: settings[name] for name in ("seed", "sampler", "eta", "crop", "feather")}
    inference("--skip_grid", outdir=tmp_path / "again", **again)
    one, two = (pixels(tmp_path / folder / "results" / "scene_exemplar_4.png") for folder in ("out", "again"))
    assert np.abs(one - two).max() <= 1


def test_the_grid_shows_inputs_and_all_results(inference, tmp_path):
    inference("--skip_save", n_samples=3)
    with Image.open(tmp_path / "out" / "grid" / "grid-scene_exemplar_3.png") as grid:
        assert grid.width > 6 * 60 and grid.height > 40
        assert len(grid.getcolors(1 << 20)) > 1000
    assert read_settings(tmp_path / "out" / "grid" / "grid-scene_exemplar_3.png")["n_samples"] == 3


def test_h_and_w_resize_the_scene(inference, tmp_path):
    inference("--skip_grid", H=24, W=50)
    assert pixels(tmp_path / "out/results/scene_exemplar_3.png").shape == (24, 50, 3)
    assert pixels(tmp_path / "out/source/scene_exemplar_3_mask.png").shape == (24, 50)


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_a_small_mask_outlives_the_resizing(inference, tmp_path, files, crop):
    mask(60, 40, box=(31, 21, 32, 22)).save(files / "dot.png")
    assert inference("--skip_grid", hole="dot.png", H=20, W=30, crop=crop)[0] == 0
    assert np.argwhere(pixels(tmp_path / "out/source/scene_exemplar_3_mask.png")).tolist() == [[10, 15]]


def test_weights_in_several_files(inference, tmp_path):
    tensors = tiny_model().state_dict()
    files = [tmp_path / "unet.safetensors", tmp_path / "rest.safetensors"]
    for file, of_unet in zip(files, (True, False), strict=True):
        save_tensors(file, {name: t for name, t in tensors.items() if name.startswith("unet.") == of_unet})
    code, _, err = inference("--skip_grid", "--ckpt", *files)
    assert (code, err) == (0, "")
    assert read_settings(tmp_path / "out/results/scene_exemplar_3.png")["ckpt"] == [str(file) for file in files]


def test_edit_original_switches_every_convention(inference, tmp_path):
    assert inference("--skip_grid", edit="original", ddim_eta=0.5)[0] == 0
    settings = read_settings(tmp_path / "out/results/scene_exemplar_3.png")
    assert {
        "sampler": "ddim",
        "eta": 0.5,
        "composite": "none",
        "guidance_scale": 1.0,
        "rounding": "truncate",
        "mask_rule": "luma",
    }.items() <= settings.items()
    assert (pixels(tmp_path / "out/results/scene_exemplar_3.png") != np.asarray(photo(60, 40)))[:4].any()


def test_an_inverted_mask(inference, tmp_path):
    inference("--skip_grid", "--invert_mask", composite="paste")
    changed = (pixels(tmp_path / "out/results/scene_exemplar_3.png") != np.asarray(photo(60, 40))).any(-1)
    assert not changed[np.asarray(mask(60, 40)) == 255].any()
    assert changed[np.asarray(mask(60, 40)) == 0].mean() > 0.9


def test_alpha_of_the_scene_reaches_the_result(inference, tmp_path, files):
    scene = photo(60, 40)
    scene.putalpha(Image.linear_gradient("L").resize((60, 40)))
    scene.save(files / "clear.webp", lossless=True, exact=True)
    assert inference("--skip_grid", scene="clear.webp")[0] == 0
    assert np.array_equal(pixels(tmp_path / "out/results/clear_exemplar_3.png")[..., 3], np.asarray(scene)[..., 3])


# bad input

BAD = {
    "scene missing": ({"image_path": "IN/none.png"}, "none.png"),
    "scene no picture": ({"image_path": "IN/text.png"}, "text.png"),
    "exemplar a folder": ({"reference_path": "IN"}, ()),
    "mask empty": ({"mask_path": "IN/black.png"}, "black.png"),
    "mask transposed": ({"mask_path": "IN/tall.png"}, "tall.png"),
    "output folder a file": ({"outdir": "IN/text.png"}, "text.png"),
    "output folder in a file": ({"outdir": "IN/text.png/new"}, "text.png"),
    "weights missing": ({"ckpt": "IN/none.ckpt"}, "none.ckpt"),
    "weights empty": ({"ckpt": "IN/empty.ckpt"}, "empty.ckpt"),
    "weights torn": ({"ckpt": "IN/torn.safetensors"}, "torn.safetensors"),
    "config missing": ({"config": "IN/none.yaml"}, "none.yaml"),
    "config no config": ({"config": "IN/text.png"}, "text.png"),
    "device": ({"device": "cuda:99"}, "cuda:99"),
    "sampler": ({"sampler": "euler"}, ("sampler", "euler")),
    "steps": ({"ddim_steps": 0}, ("steps", 0)),
    "steps no number": ({"ddim_steps": "ten"}, ("ddim_steps", "ten")),
    "too many steps": ({"ddim_steps": 1001}, ("steps", 1001)),
    "eta": ({"sampler": "plms", "ddim_eta": 0.3}, ("eta", 0.3, "ddim")),
    "precision": ({"precision": "half"}, ("--precision", "half")),
    "size": ({"H": 0}, "--H"),
    "composite": ({"composite": "blur"}, ("composite", "blur")),
    "edit": ({"edit": "theirs"}, ("edit", "theirs")),
    "unknown flag": ({"colour": 3}, "--colour"),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(inference, files, tmp_path, flags, wanted):
    (files / "text.png").write_text("no picture")
    (files / "empty.ckpt").write_bytes(b"")
    (files / "torn.safetensors").write_bytes(bytes([64, 0, 0, 0, 0, 0, 0, 0]) + b"{")
    Image.new("L", (60, 40)).save(files / "black.png")
    mask(40, 60).save(files / "tall.png")
    before = written(tmp_path)
    done = inference(**{name: str(value).replace("IN", str(files)) for name, value in flags.items()})
    assert_refused(done, wanted, stdout=True)
    assert written(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_the_output_folder_is_tried_before_the_model_is_loaded(inference, files, monkeypatch):
    monkeypatch.setattr("ldm.checkpoints.open.load", lambda *_, **__: pytest.fail("loaded"))
    assert inference(outdir=files / "scene.png")[0] == 2


def test_help_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", INFERENCE, "--help"], capture_output=True, text=True, check=True
    )
    assert "--reference_path" in done.stdout
    assert "argparse" in done.stderr and "torch" not in done.stderr


def test_a_bug_shows_its_traceback(inference, monkeypatch):
    def broken(*args, **options):
        raise KeyError("a bug")

    monkeypatch.setattr("ldm.checkpoints.open.load", broken)
    with pytest.raises(KeyError, match="a bug"):
        inference()


def test_a_result_is_never_replaced_unless_it_is_asked_for(inference, tmp_path, files):
    assert inference(n_samples=2)[0] == 0
    before = pixels(tmp_path / "out/results/scene_exemplar_4.png")
    assert_refused(inference(seed=4), "scene_exemplar_4.png", "--overwrite")
    photo(30, 50, seed=9).save(files / "other.png")
    assert inference(seed=4, reference_path=files / "other.png")[0] == 0  # another exemplar, another name
    assert np.array_equal(before, pixels(tmp_path / "out/results/scene_exemplar_4.png"))
    assert inference("--overwrite", seed=4, scale=1)[0] == 0
    assert (before != pixels(tmp_path / "out/results/scene_exemplar_4.png")).any()


def test_the_names_of_all_commands_are_taken_as_well_as_the_originals(inference, tmp_path, files):
    own = {"image": files / "scene.png", "mask": files / "mask.png", "exemplar": files / "exemplar.jpg"}
    absent = dict.fromkeys(("image_path", "reference_path"))
    assert inference(hole=None, **absent, **own, outdir=tmp_path / "own", guidance_scale=2)[0] == 0
    assert inference(scale=2)[0] == 0
    one, other = (pixels(tmp_path / folder / "results/scene_exemplar_3.png") for folder in ("own", "out"))
    assert np.array_equal(one, other)


def test_weights_alone_find_their_config(inference, tmp_path):
    """Those of the shipped model, without `--config`."""
    weights = [ROOT / f"pretrained_models/toyworld/{name}.safetensors" for name in ("exemplar", "autoencoder", "clip")]
    code, out, err = inference("--ckpt", *weights, ckpt=None, config=None)
    assert code == 0
    assert_mentions(err.splitlines()[0], "toyworld", "exemplar.safetensors")
    assert_mentions(out.splitlines()[0], "ToyWorld", "64x64")
