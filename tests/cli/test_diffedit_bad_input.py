"""scripts/diffedit.py with input that is refused."""

import re

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.refusals import assert_refused
from tests.tiny import TEXT_CONFIG, tiny_text_model
from tests.utils.pictures import mask

SIZE = (60, 40)


BAD = {
    "scene missing": ({"image": "IN/none.png"}, "none.png"),
    "scene no picture": ({"image": "IN/text.png"}, "text.png"),
    "target empty": ({"prompt": ""}, "prompt"),
    "target blank": ({"prompt": "  "}, "prompt"),
    "no target": ({"prompt": None}, "--prompt"),
    "ratio 0": ({"encode_ratio": 0}, ("encode_ratio", 0)),
    "ratio above 1": ({"encode_ratio": 1.5}, ("encode_ratio", 1.5)),
    "ratio no number": ({"encode_ratio": "nan"}, ("encode_ratio", "nan")),
    "no step": ({"encode_ratio": 0.05}, ("encode_ratio", 0.05, 5, 0.2)),
    "strength 0": ({"strength": 0}, ("strength", 0)),
    "strength above 1": ({"strength": 2}, ("strength", 2)),
    "threshold 0": ({"threshold": 0}, ("threshold", 0)),
    "threshold 1": ({"threshold": 1}, ("threshold", 1)),
    "clamp": ({"clamp": 0}, ("clamp", 0)),
    "maps": ({"n_maps": 0}, ("n_maps", 0)),
    "steps": ({"ddim_steps": 0}, ("steps", 0)),
    "too many steps": ({"ddim_steps": 1001}, ("steps", 1001)),
    "refine": ({"refine": -1}, ("refine", -1)),
    "feather": ({"feather": -1}, ("feather", -1)),
    "crop": ({"crop": "square"}, ("crop", "square", "none", "auto")),
    "mask of another size": ({"mask_path": "IN/half.png"}, ("half.png", "30x20", "60x40")),
    "mask of another shape": ({"mask_path": "IN/wide.png"}, ("wide.png", "60x20", "60x40")),
    "mask empty": ({"mask_path": "IN/black.png"}, "black.png"),
    "mask missing": ({"mask_path": "IN/none.png"}, "none.png"),
    "unknown word": ({"prompt": "a green ball"}, ("a green ball", "green")),
    "unknown word of the source": ({"source_prompt": "a tree"}, ("a tree", "tree")),
    "unknown word to avoid": ({"negative_prompt": "tree"}, "tree"),
    "config of 9 channels": ({"config": "MODEL/nine.yaml"}, ("DiffEdit", 9, 4)),
    "config of Paint by Example": (
        {"config": "v1", "ckpt": None},
        ("DiffEdit", 9, 4),
    ),
    "config of an autoencoder": ({"config": "AUTOENCODER"}, ("DiffEdit", "AutoencoderKL")),
    "file of 9 channels": ({"ckpt": "MODEL/nine.safetensors"}, ("nine.safetensors", "9-channel")),
    "weights missing": ({"ckpt": "IN/none.ckpt"}, "none.ckpt"),
    "config missing": ({"config": "IN/none.yaml"}, "none.yaml"),
    "settings": ({"edit": "theirs"}, ("diffedit", "theirs")),
    "output folder a file": ({"outdir": "IN/text.png"}, "text.png"),
    "device": ({"device": "cuda:99"}, "cuda:99"),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(diffedit, files, text_model_files, tmp_path, flags, wanted):
    (files / "text.png").write_text("no picture")
    mask(30, 20).save(files / "half.png")
    mask(60, 20).save(files / "wide.png")
    Image.new("L", SIZE).save(files / "black.png")
    OmegaConf.save({"model": TEXT_CONFIG["params"]["autoencoder"]}, files / "autoencoder.yaml")
    places = {"IN": files, "MODEL": text_model_files, "AUTOENCODER": files / "autoencoder.yaml"}

    def place(value: object) -> str | None:
        return value and re.sub("|".join(places), lambda found: str(places[found[0]]), value) if value != "" else ""

    before = written(tmp_path)
    done = diffedit(**{name: place(v) if isinstance(v, str) else v for name, v in flags.items()})
    assert_refused(done, wanted, stdout=True)
    assert written(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_mask_is_inverted_only_if_there_is_one(diffedit, tmp_path):
    assert_refused(diffedit("--invert_mask"), "--invert_mask", "--mask")
    assert not (tmp_path / "out").exists()


def test_an_empty_mask_is_said_so_and_its_map_is_kept(diffedit, tmp_path):
    code, out, err = diffedit("--prompt", "a red ball", source_prompt="a red ball")
    assert_refused((code, out, err), "a red ball", code=3, stdout=True)
    assert written(tmp_path / "out") == {"map/scene_0000.png", "map/scene_0001.png"}
    assert out.splitlines()[1:] == [str(tmp_path / "out/map" / f"scene_000{i}.png") for i in range(2)]
    assert not pixels(tmp_path / "out/map/scene_0001.png").any()
    assert pixels(tmp_path / "out/map/scene_0000.png").any()
    assert read_settings(tmp_path / "out/map/scene_0001.png")["threshold"] == 0.5


def test_damaged_weights_are_no_empty_mask(diffedit, text_model_files, tmp_path):
    tensors = {name: t.clone() for name, t in tiny_text_model().state_dict().items()}
    tensors["unet.out.2.weight"][0] = float("nan")
    save_tensors(tmp_path / "damaged.safetensors", tensors)
    assert_refused(diffedit(ckpt=tmp_path / "damaged.safetensors"), stdout=True)
    assert not (tmp_path / "out").exists()


def test_the_model_is_refused_before_its_weights_are_read(diffedit, monkeypatch):
    monkeypatch.setattr("ldm.checkpoints.open.load_into", lambda *_: pytest.fail("loaded"))
    assert diffedit(config="toyworld", ckpt=None)[0] == 2
