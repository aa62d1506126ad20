"""scripts/diffedit.py with input that is refused."""

import re

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from ldm.runs.outputs import read_settings
from tests.cli.outputs import pixels, written
from tests.tiny import TEXT_CONFIG, tiny_text_model
from tests.utils.pictures import mask

SIZE = (60, 40)


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
def test_bad_input_is_named_in_one_line_and_leaves_nothing(diffedit, files, text_model_files, tmp_path, flags, message):
    (files / "text.png").write_text("no picture")
    mask(30, 20).save(files / "half.png")
    mask(60, 20).save(files / "wide.png")
    Image.new("L", SIZE).save(files / "black.png")
    OmegaConf.save({"model": TEXT_CONFIG["params"]["autoencoder"]}, files / "autoencoder.yaml")
    places = {"IN": files, "MODEL": text_model_files, "AUTOENCODER": files / "autoencoder.yaml"}

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


def test_damaged_weights_are_no_empty_mask(diffedit, text_model_files, tmp_path):
    tensors = {name: t.clone() for name, t in tiny_text_model().state_dict().items()}
    tensors["unet.out.2.weight"][0] = float("nan")
    save_tensors(tmp_path / "damaged.safetensors", tensors)
    code, _, err = diffedit(ckpt=tmp_path / "damaged.safetensors")
    assert (code, err.count("\n")) == (2, 1) and "the model's output is not finite" in err
    assert not (tmp_path / "out").exists()


def test_the_model_is_refused_before_its_weights_are_read(diffedit, monkeypatch):
    monkeypatch.setattr("ldm.checkpoints.open.load_into", lambda *_: pytest.fail("loaded"))
    assert diffedit(config="toyworld", ckpt=None)[0] == 2
