import copy
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.config import build
from ldm.editors.compose import distance
from ldm.toyworld.render import render_scene
from ldm.utils.mask import parse_mask
from ldm.utils.png import read_settings
from ldm.utils.project import ROOT
from tests.checkpoints import official
from tests.cli.outputs import pixels, written
from tests.golden_weights import fill
from tests.refusals import assert_line
from tests.tiny import TEXT_CONFIG
from tests.utils.pictures import mask, photo

SIZE = (60, 40)


def check_background(result: np.ndarray, scene: np.ndarray, hole: Image.Image, feather: int) -> None:
    """Changed on the mask, and beyond its feather not by a byte."""
    far = distance(parse_mask(hole, hole.size), feather + 1)[0, 0].numpy()
    assert not (result != scene)[far > feather].any()
    assert (result != scene)[far == 0].any(-1).mean() > 0.9


def test_what_is_written_and_said(diffedit, tmp_path):
    code, out, err = diffedit("--show_map", precision="full")
    assert (code, err) == (0, "")
    names = {"results/scene_0000.png", "map/scene_0000.png", "overlay/scene_0000.png", "grid/grid-scene_0000.png"}
    names |= {f"source/scene_0000_{kind}.png" for kind in ("image", "mask")}
    assert written(tmp_path / "out") == names
    told, masks, *paths = out.splitlines()
    assert told == "60x40, 5 steps, encoded to 0.8, guidance 7.5, 16 evaluations a picture, precision full, cpu"
    assert re.fullmatch(r"a blue ball: mask \d+\.\d% of the picture", masks)
    assert {str(Path(line).relative_to(tmp_path / "out")) for line in paths} == names

    folder, scene = tmp_path / "out", np.asarray(photo(*SIZE)).astype(int)
    hole = Image.open(folder / "source/scene_0000_mask.png")
    check_background(pixels(folder / "results/scene_0000.png"), scene, hole, feather=4)
    assert np.array_equal(pixels(folder / "source/scene_0000_image.png"), scene)
    assert pixels(folder / "map/scene_0000.png").shape == pixels(folder / "overlay/scene_0000.png").shape == scene.shape
    selected = np.asarray(hole) == 255
    assert float(masks.split()[4][:-1]) == pytest.approx(100 * selected.mean(), abs=0.06)
    brightness = pixels(folder / "map/scene_0000.png").sum(-1)
    assert brightness[selected].min() > brightness[~selected].max()  # the mask is the map's threshold
    red, green, blue = np.moveaxis(pixels(folder / "overlay/scene_0000.png"), -1, 0)
    assert np.array_equal(green, blue) and (red > green)[selected].all() and np.array_equal((red > green), selected)


def test_the_picture_says_how_it_was_made_and_that_makes_it_again(diffedit, tmp_path, files, text_model_files):
    flags = {"seed": 5, "encode_ratio": 0.6, "n_maps": 3, "strength": 0.4, "threshold": 0.3, "clamp": 2.0, "refine": 1}
    flags |= {"scale": 3.0, "crop": "auto", "feather": 2, "composite": "feather", "negative_prompt": "a mug"}
    assert diffedit("--prompt", "a mug and a ball", "--show_map", **flags)[0] == 0
    settings = read_settings(tmp_path / "out/results/scene_0001.png")
    flags["guidance_scale"] = flags.pop("scale")
    expected = {**flags, "prompt": "a mug and a ball", "source_prompt": "a red ball", "steps": 5, "device": "cpu"}
    expected |= {"image": str(files / "scene.png"), "ckpt": [str(text_model_files / "text.safetensors")]}
    assert expected.items() <= settings.items()
    for kind in ("map", "overlay"):
        assert read_settings(tmp_path / "out" / kind / "scene_0001.png") == settings
    assert read_settings(tmp_path / "out/source/scene_0001_mask.png") == settings
    assert read_settings(tmp_path / "out/grid/grid-scene_0000.png")["prompt"] == ["a blue ball", "a mug and a ball"]

    flags["scale"] = flags.pop("guidance_scale")
    assert diffedit(prompt=settings["prompt"], outdir=tmp_path / "again", **flags)[0] == 0
    one = pixels(tmp_path / "out/results/scene_0001.png")
    two = pixels(tmp_path / "again/results/scene_0000.png")
    assert np.abs(one - two).max() <= 1
    assert (one != np.asarray(photo(*SIZE))).any()


def test_several_prompts_are_single_runs(diffedit, tmp_path):
    prompts = ["a blue ball", "a mug"]
    code, out, _ = diffedit("--prompt", "a mug", "--show_map")
    assert code == 0 and "a blue ball: mask" in out and "a mug: mask" in out
    for i, prompt in enumerate(prompts):
        assert diffedit("--show_map", prompt=prompt, outdir=tmp_path / str(i))[0] == 0
        for kind, end in (("results", ""), ("map", ""), ("source", "_mask")):
            together = pixels(tmp_path / "out" / kind / f"scene_000{i}{end}.png")
            alone = pixels(tmp_path / str(i) / kind / f"scene_0000{end}.png")
            assert np.abs(together - alone).max() <= 1
    both, one = (pixels(tmp_path / folder / "grid/grid-scene_0000.png") for folder in ("out", "0"))
    assert len(both) == 2 * len(one)


def test_nothing_is_written_over(diffedit, tmp_path):
    diffedit()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    diffedit(prompt="a mug")
    assert all(path.read_bytes() == bytes for path, bytes in before.items())
    assert {path.name for path in (tmp_path / "out/results").iterdir()} == {"scene_0000.png", "scene_0001.png"}


def test_a_given_mask(diffedit, tmp_path, files):
    code, out, err = diffedit(
        "--show_map", mask_path=files / "mask.png", n_maps=None, source_prompt=None, threshold=0.4, encode_ratio=0.4
    )
    assert code == 0
    assert_line(err.removesuffix("\n"), "note", "--threshold")
    assert "6 evaluations a picture" in out and "mask 25.0% of the picture" in out
    assert (tmp_path / "out/overlay").exists() and not (tmp_path / "out/map").exists()
    result = pixels(tmp_path / "out/results/scene_0000.png")
    check_background(result, np.asarray(photo(*SIZE)).astype(int), mask(*SIZE), feather=4)
    code, _, _ = diffedit(
        "--invert_mask", mask_path=files / "mask.png", outdir=tmp_path / "inverted", composite="paste"
    )
    changed = (pixels(tmp_path / "inverted/results/scene_0000.png") != np.asarray(photo(*SIZE))).any(-1)
    assert not changed[np.asarray(mask(*SIZE)) == 255].any() and changed[np.asarray(mask(*SIZE)) == 0].mean() > 0.9


def test_map_and_overlay_are_files_only_if_asked_for(diffedit, tmp_path):
    assert diffedit()[0] == diffedit("--show_map", outdir=tmp_path / "shown")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results", "source", "grid"}
    grids = [pixels(tmp_path / folder / "grid/grid-scene_0000.png") for folder in ("out", "shown")]
    assert np.array_equal(*grids)


def test_the_round_trip_is_measured_and_counted(diffedit, tmp_path):
    _, out, _ = diffedit("--round_trip")
    assert "20 evaluations a picture" in out
    (told,) = re.findall(r"round trip of the inversion (\d+\.\d) dB", out)
    figure = read_settings(tmp_path / "out/results/scene_0000.png")["round_trip_psnr"]
    assert float(told) == pytest.approx(figure, abs=0.06)
    lower = diffedit("--round_trip", encode_ratio=0.2, outdir=tmp_path / "lower")[1]
    assert float(re.search(r"inversion (\d+\.\d) dB", lower)[1]) > figure + 3


@pytest.mark.parametrize("crop", ["none", "auto"])
@pytest.mark.parametrize("size", [(333, 257), (9, 1), (3, 90)])
def test_any_size(diffedit, tmp_path, files, size, crop):
    photo(*size).save(files / "odd.png")
    assert diffedit(image=files / "odd.png", crop=crop, ddim_steps=2, n_maps=1, feather=2)[0] == 0
    result, hole = pixels(tmp_path / "out/results/odd_0000.png"), Image.open(tmp_path / "out/source/odd_0000_mask.png")
    assert result.shape == (size[1], size[0], 3) and hole.size == size
    far = distance(parse_mask(hole, size), 3)[0, 0].numpy()
    assert not (result != np.asarray(photo(*size)))[far > 2].any()


def test_alpha_of_the_scene_reaches_the_result(diffedit, tmp_path, files):
    scene = photo(*SIZE)
    scene.putalpha(Image.linear_gradient("L").resize(SIZE))
    scene.save(files / "clear.png")
    assert diffedit(image=files / "clear.png")[0] == 0
    assert np.array_equal(pixels(tmp_path / "out/results/clear_0000.png")[..., 3], np.asarray(scene)[..., 3])


def test_stable_diffusions_format(diffedit, tmp_path):
    OmegaConf.save(official.text_config(), tmp_path / "sd.yaml")
    file = official.write(tmp_path / "sd.ckpt", official.stable_diffusion())
    code, _, err = diffedit(config=tmp_path / "sd.yaml", ckpt=file, prompt="blue", source_prompt="red")
    assert (code, err) == (0, "")
    assert (tmp_path / "out/results/scene_0000.png").exists()


def test_a_prompt_beyond_77_tokens_is_told_of_with_what_is_cut(diffedit, tmp_path, caplog):
    config = copy.deepcopy(TEXT_CONFIG)
    encoder = config["params"]["conditioner"]["params"]["encoder"]["params"]
    encoder |= {
        "vocab_size": 49408,
        "context_length": 77,
        "tokenizer": {"target": "ldm.models.tokenizer.ClipTokenizer"},
    }
    OmegaConf.save({"model": config}, tmp_path / "clip.yaml")
    save_tensors(tmp_path / "clip.safetensors", fill(build(config)).state_dict())
    flags = {
        "config": tmp_path / "clip.yaml",
        "ckpt": tmp_path / "clip.safetensors",
        "mask_path": tmp_path / "in/mask.png",
    }
    assert diffedit(prompt="a cat " * 38 + "with a hat", **flags)[0] == 0
    (message,) = caplog.messages
    assert_line(message, 79, 75, "cat with a hat")


def test_the_examples_that_ship_are_scenes_of_toyworld():
    for name, seed, caption in (("ball", 311, "a red ball on a beach"), ("mug", 536, "a red mug in the snow")):
        scene = render_scene(seed)
        assert np.array_equal(pixels(ROOT / "dataset/toyworld_examples" / f"{name}.png"), scene.image)
        assert scene.caption == caption
