"""RePaint's own config files: flat lists of guided-diffusion's arguments, written here as its `confs` have them."""

import copy
import logging
import os
from functools import reduce
from operator import getitem

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.manifest import read_manifest
from ldm.compat.configs import load_config, translate
from ldm.compat.table import flat
from ldm.config import build
from ldm.presets import RePaintSettings
from ldm.utils.errors import UserError
from tests.refusals import assert_mentions, mentions, refused

FACES = OmegaConf.to_container(
    OmegaConf.create("""{
attention_resolutions: "32,16,8", class_cond: false, diffusion_steps: 1000, learn_sigma: true, noise_schedule: linear,
num_channels: 256, num_head_channels: 64, num_heads: 4, num_res_blocks: 2, resblock_updown: true, use_fp16: false,
use_scale_shift_norm: true, classifier_scale: 4.0, lr_kernel_n_std: 2, num_samples: 100, show_progress: true,
timestep_respacing: '250', use_kl: false, predict_xstart: false, rescale_timesteps: false,
rescale_learned_sigmas: false, classifier_use_fp16: false, classifier_width: 128, classifier_depth: 2,
classifier_attention_resolutions: "32,16,8", classifier_use_scale_shift_norm: true, classifier_resblock_updown: true,
classifier_pool: attention, num_heads_upsample: -1, channel_mult: '', dropout: 0.0, use_checkpoint: false,
use_new_attention_order: false, clip_denoised: true, use_ddim: false, latex_name: RePaint, method_name: Repaint,
image_size: 256, model_path: ./data/pretrained/celeba256_250000.pt, name: face_example, inpa_inj_sched_prev: true,
n_jobs: 1, print_estimated_vars: true, inpa_inj_sched_prev_cumnoise: false,
schedule_jump_params: {t_T: 250, n_sample: 1, jump_length: 10, jump_n_sample: 10},
data: {eval: {paper_face_mask: {
    mask_loader: true, gt_path: ./data/datasets/gts/face, mask_path: ./data/datasets/gt_keep_masks/face,
    image_size: 256, class_cond: false, deterministic: true, random_crop: false, random_flip: false, return_dict: true,
    drop_last: false, batch_size: 1, return_dataloader: true, offset: 0, max_len: 8, paths: {srs: ./log/face/inpainted,
    lrs: ./log/face/gt_masked, gts: ./log/face/gt, gt_keep_masks: ./log/face/gt_keep_mask}}}}}""")
)


def faces(**changes):
    return copy.deepcopy(FACES) | changes


def places(**changes):
    return faces(model_path="./data/pretrained/places256_300000.pt", name="test_p256_thick", **changes)


def imagenet(**changes):
    of_classes = {"class_cond": True, "use_fp16": True, "model_path": "./data/pretrained/256x256_diffusion.pt"}
    classifier = {"classifier_scale": 1.0, "classifier_path": "./data/pretrained/256x256_classifier.pt"}
    return faces(**of_classes, **classifier | changes)


def others(**walk):
    """A file with what the others do not have."""
    jumps = {"jump2_length": 2, "jump2_n_sample": 2, "jump3_length": 1, "jump3_n_sample": 1, "start_resampling": 200}
    params = faces()["schedule_jump_params"] | jumps | walk
    return imagenet(schedule_jump_params=params, inpa_inj_time_shift=1, cond_y=3, device="cuda")


PAPER = {"steps": 250, "n_sample": 1, "jump_length": 10, "jump_n_sample": 10, "sampler": "ddpm"}


@pytest.fixture
def load(tmp_path):
    def load(config, *overrides):
        OmegaConf.save(OmegaConf.create(config), tmp_path / "theirs.yml")
        return load_config(tmp_path / "theirs.yml", overrides=overrides)

    return load


@pytest.mark.parametrize(
    "config, name, weights",
    [
        (faces, "celeba256", "celeba256_250000.pt"),
        (places, "places256", "places256_300000.pt"),
        (imagenet, "imagenet256", "256x256_diffusion.pt"),
    ],
)
def test_the_papers_networks_are_ours(load, caplog, config, name, weights):
    caplog.set_level(logging.INFO, "ldm")
    theirs, ours = load(config()), load_config(name)
    assert theirs.model == ours.model
    assert theirs.checkpoint == os.path.abspath(f"data/pretrained/{weights}")
    assert {key: theirs.repaint[key] for key in PAPER} == PAPER
    assert_mentions(caplog.text, f"configs/{name}.yaml")


@pytest.mark.parametrize(
    "config, manifest",
    [(faces, "guided_256"), (imagenet, "guided_256_class")],
)
def test_the_networks_have_the_official_tensors(load, config, manifest):
    with torch.device("meta"):
        model = build(load(config()).model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.unet.state_dict().items()}
    assert shapes == read_manifest(manifest)


def test_the_settings_are_repaints(load):
    settings = RePaintSettings.read(**load(others()).repaint)
    assert (settings.steps, settings.jump2_length, settings.jump2_n_sample, settings.start_resampling) == (
        250,
        2,
        2,
        200,
    )
    assert settings.classifier_scale == 1.0
    assert RePaintSettings.read(**load(faces()).repaint).times()[:12] == [*range(249, 238, -1), 238]


def test_a_classifier_guides_where_there_is_one(load):
    assert load(imagenet()).classifier == os.path.abspath("data/pretrained/256x256_classifier.pt")
    assert load(imagenet()).repaint.classifier_scale == 1.0
    for without in faces(), imagenet(classifier_path=""), imagenet(classifier_scale=0):
        config = load(without)
        assert "classifier" not in config and "classifier_scale" not in config.repaint
    assert load(imagenet(classifier_path="", classifier_width=64)).model  # which nobody asks
    with refused("classifier_width", 64, 128, "configs/imagenet256_classifier.yaml"):
        load(imagenet(classifier_width=64))


def test_ddim_which_their_code_announces_and_lacks(load):
    assert load(faces(use_ddim=True)).repaint.sampler == "ddim"


def test_other_networks(load):
    small = faces(
        image_size=64, num_channels=64, attention_resolutions="16,8", num_head_channels=-1, resblock_updown=False,
        learn_sigma=False, noise_schedule="cosine", diffusion_steps=4000, dropout=0.1, num_res_blocks=3,
    )  # fmt: skip
    with torch.device("meta"):
        model = build(load(small).model)
    unet = load(small).model.params.unet.params
    assert (unet.channel_mult, unet.attention_resolutions, unet.num_heads) == ([1, 2, 3, 4], [4, 8], 4)
    assert (unet.dropout, unet.num_res_blocks, unet.resblock_updown) == (0.1, 3, False)
    assert (model.image_size, model.unet.model_channels, model.unet.out_channels) == (64, 64, 3)
    assert (model.variance, model.schedule.num_timesteps) == ("fixed_large", 4000)
    assert load(faces(channel_mult="0.5,1,2")).model.params.unet.params.channel_mult == [0.5, 1, 2]
    assert load(faces(attention_resolutions=16)).model.params.unet.params.attention_resolutions == [16]


def test_a_linear_schedule_of_fewer_steps_ends_as_noisy(load):
    config = load(faces(diffusion_steps=500, timestep_respacing="250"))
    schedule, paper = (build(c.model.params.schedule) for c in (config, load(faces())))
    assert torch.allclose(schedule.betas[[0, -1]], 2 * paper.betas[[0, -1]])
    assert schedule.alphas_cumprod[-1] < 1e-4


@pytest.mark.parametrize("sections", ["250", 250])
def test_the_walk_is_as_long_as_the_respaced_schedule(load, sections):
    assert load(faces(timestep_respacing=sections)).repaint.steps == 250
    whole = {"t_T": 1000, "n_sample": 1, "jump_length": 10, "jump_n_sample": 10}
    assert load(faces(timestep_respacing="", schedule_jump_params=whole)).repaint.steps == 1000
    for other in ("100", "ddim250", "", "100,150"):
        with refused("timestep_respacing", 250, "schedule_jump_params.t_T"):
            load(faces(timestep_respacing=other))


@pytest.mark.parametrize("key", list(flat(others())))
def test_no_key_is_passed_over(key):
    """Another value is refused, or seen in what comes out, or the key is named among what is left out."""
    base, values, left = translate(others(), "f")
    if key in left:
        return
    theirs, value = OmegaConf.create(others()), flat(others())[key]
    if isinstance(value, bool):
        other = not value
    elif key == "channel_mult":
        other = "1,2,3,4"
    elif key == "attention_resolutions":
        other = "16,8"
    elif isinstance(value, str):
        other = value + "x"
    else:
        other = value + 1
    OmegaConf.update(theirs, key, other)
    try:
        changed = translate(OmegaConf.to_container(theirs), "f")
    except UserError as error:
        named = (key, "timestep_respacing") if key in ("diffusion_steps", "schedule_jump_params.t_T") else (key,)
        assert any(mentions(str(error), name) for name in named)
    else:
        assert (base, values) != changed[:2]


@pytest.mark.parametrize("key", list(flat(others())))
def test_a_key_may_be_missing_but_for_the_walks(key):
    theirs = others()
    *parents, leaf = key.split(".")
    del reduce(getitem, parents, theirs)[leaf]
    walk = [f"schedule_jump_params.{name}" for name in ("t_T", "n_sample", "jump_length", "jump_n_sample")]
    if key in ("inpa_inj_sched_prev", "timestep_respacing", *walk):
        with refused(key):
            translate(theirs, "f")
    else:
        translate(theirs, "f")


def test_what_is_left_out_is_logged(load, caplog):
    caplog.set_level(logging.INFO, "ldm")
    load(others())
    told = "\n".join([*caplog.messages, ""])
    for line in (
        "repaint.steps = 250",
        "repaint.classifier_scale = 1.0",
        "use_fp16, classifier_use_fp16",
        "cond_y",
        "gt_path, data.eval.paper_face_mask.mask_path",
    ):
        assert line in told
    assert "model.params.unet" not in told
    caplog.clear()
    load(faces())
    assert_mentions(caplog.text, "classifier_pool", "classifier_path")


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("inpa_inj_sched_prv", True, ("true", "inpa_inj_sched_prev")),
        ("schedule_jump_params.jump_lenght", 3, (3, "schedule_jump_params.jump_length")),
        ("data.eval.paper_face_mask.gtpath", "x", ("x", "data.eval.paper_face_mask.gt_path")),
        ("data.eval", 3, (3,)),
        ("inpa_inj_sched_prev", False, ("false", "true")),
        (
            "inpa_inj_sched_prev_cumnoise",
            True,
            ("true", "false"),
        ),
        ("inpa_inj_time_shift", 2, (2, 1)),
        ("predict_xstart", True, ("true", "false")),
        ("rescale_timesteps", True, ("true", "false")),
        ("clip_denoised", False, ("false", "true")),
        ("class_cond", "yes", ("yes", "true", "false")),
        ("noise_schedule", "sqrt", ("sqrt", "linear", "cosine")),
        ("attention_resolutions", "32;16", "32;16"),
        ("attention_resolutions", 0, (0,)),
        ("channel_mult", "wide", "wide"),
        ("diffusion_steps", 0, (0, 1)),
        ("num_heads_upsample", 8, (8, -1)),
        ("schedule_jump_params", None, "null"),
        ("schedule_jump_params.t_T", "250", (250, 1)),
        ("model_path", None, "null"),
        ("model_path", 3, (3,)),
        ("classifier_scale", "x", "x"),
        ("image_size", "x", ("x", 1)),
        ("num_channels", 1.5, (1.5, 1)),
        ("num_res_blocks", True, ("true", 1)),
        ("num_head_channels", 0, (0, 1)),
        ("use_ddim", "maybe", ("maybe", "true", "false")),
        ("learn_sigma", "maybe", ("maybe", "true", "false")),
        ("resblock_updown", 1, (1, "true", "false")),
        ("attention_resolutions", "7", (7, 256, 128, 64, 32, 16, 8)),
        ("attention_resolutions", "32,512", ("32,512", 256, 128, 64)),
        ("attention_resolutions", "inf", "inf"),
    ],
)
def test_what_cannot_be_is_refused_by_name(load, key, value, wanted):
    theirs = OmegaConf.create(faces())
    OmegaConf.update(theirs, key, value, force_add=True)
    with refused("theirs.yml", key, wanted):
        load(OmegaConf.to_container(theirs))


def test_a_side_without_default_widths_is_refused(load):
    with refused("channel_mult", "image_size", 96):
        load(faces(image_size=96))


def test_overrides_and_later_files_are_in_our_layout(load):
    assert load(faces(), "repaint.jump_length=5").repaint.jump_length == 5


@pytest.mark.parametrize("data", [None, {}, {"eval": None}])
def test_a_file_without_pictures(load, data):
    assert load(faces(data=data)).model == load_config("celeba256").model
