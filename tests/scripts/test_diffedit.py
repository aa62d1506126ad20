import copy
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.config import ROOT, build
from ldm.data.toyworld_render import render_scene
from ldm.editors.compose import distance
from ldm.runs.outputs import read_settings
from ldm.utils.mask import parse_mask
from tests.checkpoints import official
from tests.golden_weights import fill
from tests.tiny import CONFIG, TEXT_CONFIG, tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo

SIZE = (60, 40)
KINDS = ("results", "source", "map", "overlay", "grid")


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for name, config, model in (("text", TEXT_CONFIG, tiny_text_model()), ("nine", CONFIG, tiny_model())):
        OmegaConf.save({"model": config}, folder / f"{name}.yaml")
        save_tensors(folder / f"{name}.safetensors", model.state_dict())
    return folder


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    photo(*SIZE).save(folder / "scene.png")
    mask(*SIZE).save(folder / "mask.png")
    return folder


@pytest.fixture
def diffedit(tmp_path, files, model_files, run_script):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""

    def run(*flags: object, **changes: object) -> tuple[int, str, str]:
        defaults = {
            "image": files / "scene.png",
            "prompt": "a blue ball",
            "source_prompt": "a red ball",
            "outdir": tmp_path / "out",
            "config": model_files / "text.yaml",
            "ckpt": model_files / "text.safetensors",
            "ddim_steps": 5,
            "n_maps": 2,
            "device": "cpu",
        }
        given = {name: value for name, value in {**defaults, **changes}.items() if value is not None}
        done = run_script(
            "diffedit.py", *[text for name, value in given.items() for text in (f"--{name}", str(value))], *flags
        )
        return done.returncode, done.stdout, done.stderr

    return run


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def check_background(result: np.ndarray, scene: np.ndarray, hole: Image.Image, feather: int) -> None:
    """Changed on the mask, and beyond its feather not by a byte."""
    far = distance(parse_mask(hole, hole.size), feather + 1)[0, 0].numpy()
    assert not (result != scene)[far > feather].any()
    assert (result != scene)[far == 0].any(-1).mean() > 0.9


def test_what_is_written_and_said(diffedit, tmp_path):
    code, out, err = diffedit(precision="full")
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


def test_the_picture_says_how_it_was_made_and_that_makes_it_again(diffedit, tmp_path, files, model_files):
    flags = {"seed": 5, "encode_ratio": 0.6, "n_maps": 3, "strength": 0.4, "threshold": 0.3, "clamp": 2.0, "refine": 1}
    flags |= {"scale": 3.0, "crop": "auto", "feather": 2, "composite": "feather", "negative_prompt": "a mug"}
    assert diffedit("--prompt", "a mug and a ball", **flags)[0] == 0
    settings = read_settings(tmp_path / "out/results/scene_0001.png")
    flags["guidance_scale"] = flags.pop("scale")
    expected = {**flags, "prompt": "a mug and a ball", "source_prompt": "a red ball", "steps": 5, "device": "cpu"}
    expected |= {"image": str(files / "scene.png"), "ckpt": [str(model_files / "text.safetensors")]}
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
    code, out, _ = diffedit("--prompt", "a mug")
    assert code == 0 and "a blue ball: mask" in out and "a mug: mask" in out
    for i, prompt in enumerate(prompts):
        assert diffedit(prompt=prompt, outdir=tmp_path / str(i))[0] == 0
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
    assert err == "note: --threshold, --show_map: the mask is given, without effect\n"
    assert "6 evaluations a picture" in out and "mask 25.0% of the picture" in out
    assert not (tmp_path / "out/map").exists()
    result = pixels(tmp_path / "out/results/scene_0000.png")
    check_background(result, np.asarray(photo(*SIZE)).astype(int), mask(*SIZE), feather=4)
    code, _, _ = diffedit(
        "--invert_mask", mask_path=files / "mask.png", outdir=tmp_path / "inverted", composite="paste"
    )
    changed = (pixels(tmp_path / "inverted/results/scene_0000.png") != np.asarray(photo(*SIZE))).any(-1)
    assert not changed[np.asarray(mask(*SIZE)) == 255].any() and changed[np.asarray(mask(*SIZE)) == 0].mean() > 0.9


def test_the_map_in_the_terminal(diffedit):
    lines = diffedit("--show_map", threshold=0.5)[1].splitlines()
    cells = [line for line in lines if re.fullmatch(r"[.1-9]{60}", line)]
    assert len(cells) == 20 and "9" in "".join(cells)


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
    assert caplog.messages == ["prompt of 79 tokens, of which 75 fit; cut off: 'cat with a hat'"]


def test_the_examples_that_ship_are_scenes_of_toyworld():
    for name, seed, caption in (("ball", 8, "a red ball at sunset"), ("mug", 200, "an orange mug on a meadow")):
        scene = render_scene(seed)
        assert np.array_equal(pixels(ROOT / "dataset/toyworld_examples" / f"{name}.png"), scene.image)
        assert scene.caption == caption


# bad input

BAD = {
    "scene missing": ({"image": "IN/none.png"}, "none.png: no such file"),
    "scene no picture": ({"image": "IN/text.png"}, "text.png: not an image"),
    "target empty": ({"prompt": ""}, "target prompt: is empty, expected what the picture is to show"),
    "target blank": ({"prompt": "  "}, "target prompt: is empty"),
    "no target": ({"prompt": None}, "the following arguments are required: --prompt"),
    "ratio 0": ({"encode_ratio": 0}, "encode_ratio 0: expected more than 0 and at most 1"),
    "ratio above 1": ({"encode_ratio": 1.5}, "encode_ratio 1.5: expected more than 0 and at most 1"),
    "ratio no number": ({"encode_ratio": "nan"}, "encode_ratio nan: expected more than 0"),
    "no step": ({"encode_ratio": 0.05}, r"encode_ratio 0.05 of 5 steps: is no step, expected 0.2 or more"),
    "strength 0": ({"strength": 0}, "strength 0: expected more than 0 and at most 1"),
    "strength above 1": ({"strength": 2}, "strength 2: expected more than 0 and at most 1"),
    "threshold 0": ({"threshold": 0}, "threshold 0: expected more than 0 and less than 1"),
    "threshold 1": ({"threshold": 1}, "threshold 1: expected more than 0 and less than 1"),
    "clamp": ({"clamp": 0}, "clamp 0: expected more than 0"),
    "maps": ({"n_maps": 0}, "n_maps 0: expected 1 or more"),
    "steps": ({"ddim_steps": 0}, "steps 0: expected 1 or more"),
    "too many steps": ({"ddim_steps": 1001}, "steps 1001"),
    "refine": ({"refine": -1}, "refine -1: expected 0 or more"),
    "feather": ({"feather": -1}, "feather -1: expected 0 or more"),
    "crop": ({"crop": "square"}, "crop 'square': expected one of none, auto"),
    "mask of another size": ({"mask_path": "IN/half.png"}, "half.png: is 30x20 and the image 60x40, expected the same"),
    "mask of another shape": ({"mask_path": "IN/wide.png"}, "wide.png: is 60x20 and the image 60x40"),
    "mask empty": ({"mask_path": "IN/black.png"}, "black.png: nothing is selected"),
    "mask missing": ({"mask_path": "IN/none.png"}, "none.png: no such file"),
    "unknown word": ({"prompt": "a green ball"}, "prompt 'a green ball': unknown word 'green'"),
    "unknown word of the source": ({"source_prompt": "a tree"}, "prompt 'a tree': unknown word 'tree'"),
    "unknown word to avoid": ({"negative_prompt": "tree"}, "prompt 'tree': unknown word 'tree'"),
    "config of 9 channels": ({"config": "MODEL/nine.yaml"}, "DiffEdit: the UNet has 9 input channels, not the 4 of"),
    "config of Paint by Example": (
        {"config": "v1", "ckpt": None},
        "DiffEdit: the UNet has 9 input channels, not the 4",
    ),
    "config of an autoencoder": ({"config": "AUTOENCODER"}, "DiffEdit: AutoencoderKL is no text-to-image model"),
    "file of 9 channels": ({"ckpt": "MODEL/nine.safetensors"}, "nine.safetensors: .*it is a 9-channel checkpoint"),
    "weights missing": ({"ckpt": "IN/none.ckpt"}, "none.ckpt"),
    "config missing": ({"config": "IN/none.yaml"}, "none.yaml"),
    "settings": ({"edit": "theirs"}, "diffedit settings theirs: neither"),
    "output folder a file": ({"outdir": "IN/text.png"}, "output folder .*text.png: cannot be written"),
    "device": ({"device": "cuda:99"}, "device 'cuda:99'"),
}


@pytest.mark.parametrize("flags, message", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(diffedit, files, model_files, tmp_path, flags, message):
    (files / "text.png").write_text("no picture")
    mask(30, 20).save(files / "half.png")
    mask(60, 20).save(files / "wide.png")
    Image.new("L", SIZE).save(files / "black.png")
    OmegaConf.save({"model": TEXT_CONFIG["params"]["autoencoder"]}, files / "autoencoder.yaml")
    places = {"IN": files, "MODEL": model_files, "AUTOENCODER": files / "autoencoder.yaml"}

    def place(value: object) -> str | None:
        return value and re.sub("|".join(places), lambda found: str(places[found[0]]), value) if value != "" else ""

    before = written(tmp_path)
    code, out, err = diffedit(**{name: place(v) if isinstance(v, str) else v for name, v in flags.items()})
    assert code == 2
    assert re.fullmatch(rf"error: .*{message}.*\n", err)
    assert written(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_mask_is_inverted_only_if_there_is_one(diffedit, tmp_path):
    assert diffedit("--invert_mask")[::2] == (2, "error: --invert_mask: expected --mask_path with it\n")
    assert not (tmp_path / "out").exists()


def test_an_empty_mask_is_said_so_and_its_map_is_kept(diffedit, tmp_path):
    code, out, err = diffedit("--prompt", "a red ball", source_prompt="a red ball")
    assert code == 3
    assert err == (
        "error: the inferred mask is empty: nothing of the picture differs between 'a red ball' and 'a red ball'\n"
    )
    assert written(tmp_path / "out") == {"map/scene_0000.png", "map/scene_0001.png"}
    assert out.splitlines()[1:] == [str(tmp_path / "out/map" / f"scene_000{i}.png") for i in range(2)]
    assert not pixels(tmp_path / "out/map/scene_0001.png").any()
    assert pixels(tmp_path / "out/map/scene_0000.png").any()
    assert read_settings(tmp_path / "out/map/scene_0001.png")["threshold"] == 0.5


def test_damaged_weights_are_no_empty_mask(diffedit, model_files, tmp_path):
    tensors = {name: t.clone() for name, t in tiny_text_model().state_dict().items()}
    tensors["unet.out.2.weight"][0] = float("nan")
    save_tensors(tmp_path / "damaged.safetensors", tensors)
    code, _, err = diffedit(ckpt=tmp_path / "damaged.safetensors")
    assert (code, err.count("\n")) == (2, 1) and "the model's output is not finite" in err
    assert not (tmp_path / "out").exists()


def test_the_model_is_refused_before_its_weights_are_read(diffedit, monkeypatch):
    monkeypatch.setattr("ldm.runs.model.load", lambda *_: pytest.fail("loaded"))
    assert diffedit(config="toyworld", ckpt=None)[0] == 2
