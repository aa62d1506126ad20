"""scripts/repaint.py with input that is refused."""

import re

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.cli.outputs import written
from tests.cli.test_repaint import SIZE, models, repaint  # noqa: F401  (fixtures)
from tests.refusals import assert_refused
from tests.tiny import TEXT_CONFIG
from tests.utils.pictures import mask

BAD = {
    "picture missing": ({"image": "IN/none.png"}, "none.png"),
    "picture no picture": ({"image": "IN/text.png"}, "text.png"),
    "no hole": ({"mask_path": None}, ("--mask", "--mask_type")),
    "two holes": ({"mask_path": "IN/mask.png", "mask_type": "half"}, ("--mask", "--mask_type")),
    "mask of another size": (
        {"mask_path": "IN/small.png"},
        ("small.png", "10x7", "20x14"),
    ),
    "mask of another shape": ({"mask_path": "IN/wide.png"}, ("wide.png", "20x7", "20x14")),
    "all known": ({"mask_path": "IN/black.png"}, "black.png"),
    "all unknown": ({"mask_path": "IN/white.png"}, "mask"),
    "unknown kind": ({"mask_type": "round"}, ("round", "wide", "narrow")),
    "kind for a tiny picture": ({"mask_type": "half", "image": "IN/tiny.png"}, ("half", "6x4", 8)),
    "seed of a mask file": ({"mask_seed": 3}, ("--mask_seed", "--mask_type")),
    "seed of a mask that is not drawn": (
        {"mask_type": "genhalf", "mask_seed": 3},
        ("--mask_seed", "--mask_type", "genhalf"),
    ),
    "seed of an unknown kind": ({"mask_type": "round", "mask_seed": 3}, ("round", "wide")),
    "steps": ({"steps": 0}, ("steps", 0)),
    "too many steps": ({"steps": 1001}, ("steps", 1001, 1000)),
    "jump as long as the schedule": ({"jump_length": 4}, ("jump_length", 4)),
    "jump length 0": ({"jump_length": 0}, ("jump_length", 0)),
    "jump count negative": ({"jump_n_sample": -1}, ("jump_n_sample", -1)),
    "second jump": ({"jump2_length": 9, "jump2_n_sample": 2}, ("jump2_length", 9, 4)),
    "third jump": ({"jump3_n_sample": 0}, ("jump3_n_sample", 0)),
    "n_sample": ({"n_sample": 0}, ("n_sample", 0)),
    "start of resampling": ({"start_resampling": -2}, ("start_resampling", -2)),
    "eta without ddim": ({"eta": 0.5}, ("eta", 0.5, "ddim")),
    "eta": ({"eta": 2, "sampler": "ddim"}, ("eta", 2.0)),
    "eta no number": ({"eta": "nan", "sampler": "ddim"}, ("eta", "nan")),
    "seeds": ({"seed": 2**63 - 1, "n_samples": 2}, ("seed", 9223372036854775807, 9223372036854775806)),
    "scale": ({"scale": 3}, "--guidance_scale"),
    "sampler": ({"sampler": "plms"}, ("sampler", "plms", "ddpm", "ddim", "dpm_solver")),
    "samples": ({"n_samples": 0}, ("n_samples", 0)),
    "crop": ({"crop": "square"}, ("crop", "square", "none", "auto")),
    "feather": ({"feather": -1}, ("feather", -1)),
    "settings": ({"edit": "theirs"}, ("repaint", "theirs")),
    "class missing": ({"model": "classes"}, ("class_id", 0, 4)),
    "class too high": ({"model": "classes", "class_id": 5}, ("class_id", 5, 0, 4)),
    "class negative": ({"model": "classes", "class_id": -1}, ("class_id", -1, 0, 4)),
    "class of none": ({"class_id": 1}, ("class_id", 1)),
    "class of the classifier missing": ({"classifier_config": "MODEL/classifier.yaml"}, "class_id"),
    "classifier of other classes": (
        {"model": "classes", "class_id": 1, "classifier_config": "MODEL/other.yaml"},
        (5, 7, "classifier"),
    ),
    "classifier none": ({"classifier_config": "MODEL/classes.yaml", "class_id": 1}, "PixelDiffusion"),
    "scale of no classifier": ({"classifier_scale": 2}, ("--classifier_scale", "--classifier")),
    "classifier without weights": (
        {"classifier_config": "MODEL/classifier.yaml", "classifier": None},
        "classifier.yaml",
    ),
    "picture of another size than the classifier's": (
        {"classifier_config": "MODEL/classifier.yaml", "class_id": 1},
        ("20x14", "16x16"),
    ),
    "prompt to a model of pictures": ({"prompt": "a ball"}, "prompt"),
    "exemplar to a model of pictures": ({"reference_path": "IN/mask.png"}, "exemplar"),
    "exemplar missing": ({"config": "TEXT/nine.yaml"}, "exemplar"),
    "config of an autoencoder": ({"config": "IN/autoencoder.yaml"}, ("RePaint", "AutoencoderKL")),
    "config without a model": ({"config": "IN/empty.yaml"}, ("empty.yaml", "model")),
    "class count of the file": (
        {"ckpt": "MODEL/ten.safetensors", "model": "classes", "class_id": 1},
        "ten.safetensors",
    ),
    "file of classes": ({"ckpt": "MODEL/classes.safetensors"}, "classes.safetensors"),
    "weights missing": ({"ckpt": "IN/none.pt"}, "none.pt"),
    "output folder a file": ({"outdir": "IN/text.png"}, "text.png"),
    "device": ({"device": "cuda:99"}, "cuda:99"),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(
    repaint, models, text_model_files, tmp_path, flags, wanted  # noqa: F811
):  # fmt: skip
    folder = tmp_path / "in"
    (folder / "text.png").write_text("no picture")
    mask(10, 7).save(folder / "small.png")
    mask(20, 7).save(folder / "wide.png")
    Image.new("L", SIZE).save(folder / "black.png")
    Image.new("L", SIZE, 255).save(folder / "white.png")
    Image.new("RGB", (6, 4)).save(folder / "tiny.png")
    OmegaConf.save({"model": TEXT_CONFIG["params"]["autoencoder"]}, folder / "autoencoder.yaml")
    OmegaConf.save({"name": "nothing"}, folder / "empty.yaml")
    places = {"IN/": f"{folder}/", "MODEL/": f"{models}/", "TEXT/": f"{text_model_files}/"}

    def place(value: object) -> object:
        return re.sub("|".join(places), lambda found: places[found[0]], value) if isinstance(value, str) else value

    flags = {name: place(value) for name, value in flags.items()}
    if "classifier_config" in flags and "classifier" not in flags:
        flags["classifier"] = flags["classifier_config"].replace(".yaml", ".safetensors")
    before = written(tmp_path)
    assert_refused(repaint(**flags), wanted, stdout=True)
    assert written(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_mask_is_inverted_only_if_it_is_a_file(repaint, tmp_path):  # noqa: F811
    assert_refused(repaint("--invert_mask", mask_type="half"), "--invert_mask", "--mask")
    assert not (tmp_path / "out").exists()


def test_the_model_is_refused_before_its_weights_are_read(repaint, monkeypatch):  # noqa: F811
    monkeypatch.setattr("ldm.checkpoints.open.load_into", lambda *_: pytest.fail("loaded"))
    for flags in ({"model": "classes"}, {"class_id": 1}, {"prompt": "a ball"}, {"steps": 2000}, {"scale": 2}):
        assert repaint(**flags)[0] == 2
