"""The original's own config files, whose `model` node is recorded in the golden file of its inference script."""

import copy
import logging

import pytest
import torch
from omegaconf import OmegaConf

import ldm
from ldm.checkpoints.keymaps import is_skipped, official
from ldm.checkpoints.manifest import read_manifest
from ldm.compat import latent_diffusion
from ldm.compat.configs import load_config
from ldm.compat.table import flat
from ldm.config import build
from ldm.utils.errors import UserError
from tests.golden_weights import load_golden
from tests.refusals import assert_line, assert_mentions, refused

RECORDED = load_golden("pipeline_prepost")["config"]["model"]
FULL_SIZE = {  # the recording's network is small
    "image_size": 64,
    "unet_config.params.model_channels": 320,
    "unet_config.params.context_dim": 768,
    "first_stage_config.params.ddconfig.ch": 128,
}


def paint_by_example():
    """As its configs/v1.yaml says it: 8 GPUs of 4, 40 epochs."""
    sets = {"dataset_dir": "photos", "arbitrary_mask_percent": 0.25, "image_size": 512}
    data = {
        "batch_size": 4,
        "num_workers": 3,
        "use_worker_init_fn": False,
        "wrap": False,
        **{
            name: {"target": "ldm.data.open_images.OpenImageDataset", "params": {"state": name} | sets}
            for name in ("train", "validation", "test")
        },
    }
    warm_up = {"warm_up_steps": [5000], "cycle_lengths": [10**13], "f_start": [1e-6], "f_max": [1.0], "f_min": [1.0]}
    config = OmegaConf.create(
        {
            "model": RECORDED | {"base_learning_rate": 2e-5},
            "data": {"target": "main.DataModuleFromConfig", "params": data},
            "lightning": {
                "callbacks": {"image_logger": {"target": "main.ImageLogger", "params": {"max_images": 4}}},
                "trainer": {"max_epochs": 40, "num_nodes": 2, "gpus": "0,1,2,3,4,5,6,7", "accumulate_grad_batches": 3},
            },
        }
    )
    config.model.params.scheduler_config = {"target": "ldm.lr_scheduler.LambdaLinearScheduler", "params": warm_up}
    for key, value in FULL_SIZE.items():
        OmegaConf.update(config, f"model.params.{key}", value)
    return OmegaConf.to_container(config)


def stable_diffusion():
    """As its configs/stable-diffusion/v1-inference.yaml says it."""
    config = {"model": paint_by_example()["model"]}
    params = config["model"]["params"]
    params["unet_config"]["params"]["in_channels"] = 4
    del params["unet_config"]["params"]["add_conv_in_front_of_unet"], params["u_cond_percent"]
    params |= {"first_stage_key": "jpg", "cond_stage_key": "txt", "cond_stage_trainable": False}
    params["cond_stage_config"] = {"target": "ldm.modules.encoders.modules.FrozenCLIPEmbedder"}
    return config


@pytest.fixture
def load(tmp_path):
    def load(config, *overrides):
        OmegaConf.save(OmegaConf.create(config), tmp_path / "theirs.yaml")
        return load_config(tmp_path / "theirs.yaml", overrides=overrides)

    return load


def refusal(load, key, value, config=None):
    config = OmegaConf.create(config or paint_by_example())
    OmegaConf.update(config, key, value, force_add=True)
    with refused() as error:
        load(config)
    return str(error.value).partition("theirs.yaml: ")[2]


def test_paint_by_example_is_our_v1(load):
    theirs, ours = load(paint_by_example()), load_config("v1")
    assert theirs.model == ours.model
    OmegaConf.update(ours, "training.params.optimisation.params.learning_rate", 2e-5)
    OmegaConf.update(ours, "training.params.optimisation.params.warmup_steps", 5000)
    OmegaConf.update(ours, "recipe.params.arbitrary_mask_percent", 0.25)
    ours.data.params.update({"batch_size": 4 * 8 * 2 * 3, "batch_per_device": 4, "num_workers": 3})
    ours.data.params.train.params.root = ours.data.params.validation.params.root = "photos"
    ours.trainer.update({"devices": [*range(8)], "num_nodes": 2, "precision": "32-true", "gradient_clip_val": None})
    assert theirs == ours


def test_stable_diffusion_is_our_sd_v1(load):
    theirs, ours = load(stable_diffusion()), load_config("sd_v1")
    OmegaConf.update(ours, "model.params.unet.params.use_checkpoint", True)  # as in their file, for training
    assert theirs == ours


@pytest.mark.parametrize("config, manifest", [(paint_by_example, "paint_by_example"), (stable_diffusion, "sd_v1")])
def test_the_networks_have_the_official_tensors(load, config, manifest):
    with torch.device("meta"):
        model = build(load(config()).model)
    official_shapes = read_manifest(manifest)
    found = {part for name in model.state_dict() for part in official(name)}
    assert found == {name for name in official_shapes if not is_skipped(name)}
    for name, tensor in model.state_dict().items():
        assert sum(official_shapes[part][0] for part in official(name)) == tensor.shape[0]


def test_the_sizes_are_the_files_own(load):
    config = paint_by_example()
    config["model"] = copy.deepcopy(RECORDED)
    with torch.device("meta"):
        model = build(load(config).model)
    assert (model.image_size, model.unet.model_channels, model.conditioner.proj_out.out_features) == (128, 32, 64)


def test_inference_takes_it(load, tmp_path):
    load(paint_by_example())
    with refused(tmp_path / "theirs.yaml"):
        ldm.load(tmp_path / "theirs.yaml")


@pytest.mark.parametrize("key", list(flat(paint_by_example())))
def test_no_key_is_passed_over(key):
    """Another value is refused, or seen in what comes out, or the key is named among what is left out."""
    theirs = OmegaConf.create(paint_by_example())
    _, values, left = latent_diffusion.translate(OmegaConf.to_container(theirs), "f")
    if any(key == name or key.startswith(f"{name}.") for name in left):
        return
    value = flat(paint_by_example())[key]
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, str):
        other = "0," if key.endswith("gpus") else value + "x"
    elif isinstance(value, list):  # of numbers
        other = [*value, 7] if value != [5000] else [6000]
    else:
        other = value + 1
    OmegaConf.update(theirs, key, other)
    try:
        _, changed, _ = latent_diffusion.translate(OmegaConf.to_container(theirs), "f")
    except UserError as error:
        assert_line(str(error), key)
    else:
        assert changed != values


def test_what_is_left_out_is_logged(load, caplog):
    caplog.set_level(logging.INFO, "ldm")
    load(paint_by_example())
    told = "\n".join([*caplog.messages, ""])
    assert_mentions(told, "configs/v1.yaml")
    assert "  data.params.batch_size = 96\n" not in told and "  data.params.batch_size = 192\n" in told
    assert_mentions(told, "lightning.trainer.max_epochs", "trainer.max_steps")
    assert "lightning.callbacks" in told and "model.params.unet" not in told


def test_what_the_file_does_not_say_is_as_in_the_originals_code(load):
    config = paint_by_example()
    for key in ("linear_start", "scale_factor", "use_ema", "u_cond_percent", "scheduler_config"):
        del config["model"]["params"][key]
    del config["data"]["params"]["validation"]
    ours = load(config)
    assert (ours.model.params.schedule.params.start, ours.model.params.scale_factor) == (1e-4, 1.0)
    assert (ours.ema, ours.training.params.uncond_probability, ours.data.params.validation) == (0.9999, 0.0, None)
    assert ours.training.params.optimisation.params.warmup_steps == 0


def test_overrides_and_later_files_are_in_our_layout(load, tmp_path):
    assert load(paint_by_example(), "trainer.devices=1", "data.params.batch_size=8").trainer.devices == 1
    (tmp_path / "more.yaml").write_text("trainer: {max_steps: 7}")
    assert load_config(tmp_path / "theirs.yaml", tmp_path / "more.yaml").trainer.max_steps == 7


@pytest.mark.parametrize("key", ["data", "lightning", "model.params.scheduler_config"])
def test_an_empty_section_is_none(load, key):
    config = OmegaConf.create(paint_by_example())
    OmegaConf.update(config, key, None)
    assert load(config).model == load_config("v1").model


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("model.params.scale_fctor", 1.0, (1.0, "model.params.scale_factor")),
        ("model.params.unet_config.params.use_spatial_transformer", False, ("false", "true")),
        ("model.params.loss_type", "l1", ("l1", "l2")),
        ("model.params.scheduler_config.target", "x.Cosine", ("x.Cosine", "ldm.lr_scheduler.LambdaLinearScheduler")),
        ("model.params.cond_stage_config.target", "x.T5", "x.T5"),
        ("data.params.train.target", "x.Laion", ("x.Laion", "ldm.data.open_images.OpenImageDataset")),
        ("lightning.trainer.gpus", -1, (-1,)),
        ("lightning.trainer.precision", 8, (8,)),
        ("lightning.trainer.epochs", 8, (8, "lightning.trainer.max_epochs")),
    ],
)
def test_what_cannot_be_is_refused_by_name(load, key, value, wanted):
    assert_mentions(refusal(load, key, value), key, wanted)


def test_the_width_of_clips_text_tower_is_fixed(load):
    key = "model.params.unet_config.params.context_dim"
    assert_mentions(refusal(load, key, 1024, stable_diffusion()), key, 1024, 768)


@pytest.mark.parametrize("gpus, ours", [("0,", [0]), ("0,2", [0, 2]), ("1,2,", [1, 2]), (2, 2), ("4", 4)])
def test_devices(gpus, ours):
    assert latent_diffusion.devices(gpus) == ours


@pytest.mark.parametrize("gpus", ["", "0", "-1", "a", "1,a", ",", "1,,2", None, 0])
def test_devices_that_say_nothing(gpus):
    with pytest.raises(ValueError, match="devices"):
        latent_diffusion.devices(gpus)
