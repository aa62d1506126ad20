import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.keymaps import OFFICIAL, is_skipped, official, official_flat
from ldm.checkpoints.load import build_empty, choose
from ldm.checkpoints.manifest import read_manifest
from ldm.config import load_config

SCHEDULE = {"target": "ldm.diffusion.schedule.Schedule.scaled_linear"}
CONDITIONERS = {
    "paint_by_example": ("models/unet_paint_by_example", "ExemplarConditioner", "models/clip_image_vit_l14"),
    "sd_v1": ("models/unet_sd_v1", "TextConditioner", "models/clip_text_vit_l14"),
}


@pytest.fixture(scope="module", params=["paint_by_example", "sd_v1"])
def full_size(request):
    """The official file's names and shapes, and ours, at full size (no memory is used)."""
    unet, kind, encoder = CONDITIONERS[request.param]
    conditioner = {"encoder": load_config(encoder)} | ({"context_dim": 768} if kind == "ExemplarConditioner" else {})
    module = "clip_image" if kind == "ExemplarConditioner" else "clip_text"
    params = {
        "unet": load_config(unet),
        "autoencoder": load_config("models/kl_f8"),
        "conditioner": {"target": f"ldm.models.{module}.{kind}", "params": conditioner},
        "schedule": SCHEDULE,
        "scale_factor": 0.18215,
        "image_size": 512,
    }
    node = OmegaConf.create({"target": "ldm.models.latent_diffusion.LatentDiffusion", "params": params})
    ours = {name: tuple(tensor.shape) for name, tensor in build_empty(node).state_dict().items()}
    return read_manifest(request.param), ours


def test_every_official_tensor_has_its_place(full_size):
    theirs, ours = full_size
    found = {}
    for name, shape in ours.items():
        sources = official(name)
        assert sum(theirs[source][0] for source in sources) == shape[0] if shape else len(sources) == 1
        assert all(theirs[source][1:] == shape[1:] for source in sources)
        for source in sources:
            assert found.setdefault(source, name) == name  # read once only
    left = set(theirs) - set(found)
    assert all(map(is_skipped, left))
    assert len(left) == 13  # twelve schedule buffers and position_ids


def test_q_k_v_are_fused_in_this_order():
    block = "conditioner.encoder.visual.transformer.resblocks.3.attn."
    layer = "cond_stage_model.transformer.vision_model.encoder.layers.3.self_attn."
    assert official(block + "in_proj_bias") == (layer + "q_proj.bias", layer + "k_proj.bias", layer + "v_proj.bias")
    assert official(block + "out_proj.weight") == (layer + "out_proj.weight",)


def test_dialect_is_told_from_the_names(full_size):
    theirs, ours = full_size
    tensors = dict.fromkeys(theirs, torch.empty(0))
    assert choose(ours, tensors, OFFICIAL) is official
    flat = {name.replace("vision_model.", "").replace("text_model.", ""): t for name, t in tensors.items()}
    assert choose(ours, flat, OFFICIAL) is official_flat
    assert choose(ours, dict.fromkeys(ours, torch.empty(0)), OFFICIAL)("unet.x") == ("unet.x",)


@pytest.mark.parametrize(
    "name", ["model.diffusion_model.betas", "unet.betas", "betas2", "model_ema.x", "learnable_vector"]
)
def test_nothing_else_is_skipped(name):
    assert not is_skipped(name)
