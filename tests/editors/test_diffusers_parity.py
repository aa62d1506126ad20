"""Whole edits against diffusers' `PaintByExamplePipeline`: the same weights, pictures, timesteps and generator.

The model is of toy width but has every kind of layer of Paint by Example, and diffusers' own converters read its
weights by their official names. The pipeline shrinks the mask by nearest neighbour where the original, and we, do it
bilinearly: the masks here are made of whole latent pixels, for which both are exact.
"""

import sys

import diffusers
import pytest
import torch
import transformers

from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.editors.exemplar import ExemplarEditor
from ldm.models.clip_image import ClipImageEncoder, ExemplarConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.presets import EditSettings
from tests.editors.diffusers_peers import (
    CONTEXT,
    HEADS,
    SCALE_FACTOR,
    SCHEDULERS,
    Noise,
    checked,
    official_weights,
    our_unet,
    our_vae,
    their_unet,
    their_vae,
)
from tests.golden_weights import fill

BATCH, HEIGHT, WIDTH, EXEMPLAR = 2, 64, 96, 28  # pixels; the autoencoder divides by 8
CLIP_WIDTH, CLIP_LAYERS = 32, 9  # from the depth follows that of diffusers' mapper: (9 + 1) // 5 = 2 blocks


@pytest.fixture(scope="module")
def model():
    clip = ClipImageEncoder(EXEMPLAR, patch_size=7, width=CLIP_WIDTH, layers=CLIP_LAYERS, heads=HEADS)
    model = LatentDiffusion(
        unet=our_unet(9),
        autoencoder=our_vae(),
        conditioner=ExemplarConditioner(clip, CONTEXT, mapper_layers=2),
        schedule=Schedule.scaled_linear(),
        scale_factor=SCALE_FACTOR,
        image_size=64,
    )
    return fill(model)


@pytest.fixture(scope="module")
def components(model):
    """The pipeline's networks."""
    weights = official_weights(model)
    components = {"unet": their_unet(weights, 9), "vae": their_vae(weights), "image_encoder": their_encoder(weights)}
    return checked(components, model)


def their_encoder(weights):
    """diffusers has no converter for this one that works offline."""
    config = transformers.CLIPVisionConfig(
        hidden_size=CLIP_WIDTH,
        intermediate_size=4 * CLIP_WIDTH,
        num_hidden_layers=CLIP_LAYERS,
        num_attention_heads=HEADS,
        image_size=EXEMPLAR,
        patch_size=7,
        hidden_act="quick_gelu",
        projection_dim=CONTEXT,
    )
    # Old and new versions keep the class in different packages, always beside the pipeline
    encoder = sys.modules[diffusers.PaintByExamplePipeline.__module__].PaintByExampleImageEncoder(config)
    renamed = {
        "cond_stage_model.transformer.vision_model.": "model.",
        "cond_stage_model.mapper.resblocks.": "blocks.",
        "cond_stage_model.final_ln.": "final_layer_norm.",
        "proj_out.": "proj_out.",
        "learnable_vector": "uncond_vector",
    }
    block = {
        ".ln_1.": ".norm1.",
        ".ln_2.": ".norm3.",
        ".attn.c_proj.": ".attn1.to_out.0.",
        ".mlp.c_fc.": ".ff.net.0.proj.",
        ".mlp.c_proj.": ".ff.net.2.",
    }
    converted = {}
    for name, tensor in weights.items():
        root = next((root for root in renamed if name.startswith(root)), None)
        if root is None:
            continue
        name = renamed[root] + name.removeprefix(root)
        if root.endswith(".resblocks."):
            name = "mapper." + name
            for ours, theirs in block.items():
                name = name.replace(ours, theirs)
        if ".attn.c_qkv." in name:
            for part, value in zip("qkv", tensor.chunk(3), strict=True):
                converted[name.replace("attn.c_qkv", f"attn1.to_{part}")] = value
        else:
            converted[name] = tensor
    encoder.load_state_dict(converted)
    return encoder


@pytest.fixture(scope="module")
def inputs():
    """Two pictures, holes and exemplars, as both pipelines take them."""
    generator = torch.Generator().manual_seed(0)
    hole = (torch.rand(BATCH, 1, HEIGHT // 8, WIDTH // 8, generator=generator) < 0.4).float()
    return {
        "image": 2 * torch.rand(BATCH, 3, HEIGHT, WIDTH, generator=generator) - 1,
        "mask": hole.repeat_interleave(8, 2).repeat_interleave(8, 3),
        "exemplar": torch.randn(BATCH, 3, EXEMPLAR, EXEMPLAR, generator=generator),
    }


CASES = [(sampler, S, 0.0) for sampler in SCHEDULERS for S in (10, 20)] + [("ddim", 10, 1.0)]


@pytest.mark.parametrize("sampler, S, eta", CASES)
def test_whole_edit(model, components, inputs, monkeypatch, sampler, S, eta):
    pipeline = diffusers.PaintByExamplePipeline(
        **components, scheduler=SCHEDULERS[sampler](), safety_checker=None, feature_extractor=None
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        inputs["exemplar"],
        inputs["image"],
        inputs["mask"],
        num_inference_steps=S,
        guidance_scale=5.0,
        eta=eta,
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
    ).images

    timesteps = pipeline.scheduler.timesteps.unique().flip(0)  # theirs for PLMS repeat one, for its second call
    if sampler == "dpm_solver":  # its grid starts at 999, where ours does not
        monkeypatch.setattr("ldm.editors.editor.sampling_timesteps", lambda S, T: timesteps)
    else:
        assert timesteps.tolist() == sampling_timesteps(S).tolist()
    editor = ExemplarEditor(model, EditSettings.read(sampler=sampler, steps=S, guidance_scale=5.0, eta=eta))
    context = editor.model.conditioner(inputs["exemplar"])
    z = editor.sample(inputs["image"], inputs["mask"], context, Noise(BATCH, 1), editor.settings)
    assert (z - expected).abs().max() < 3e-5 * expected.abs().max()

    picture = pipeline.vae.decode(expected / SCALE_FACTOR).sample
    assert (editor.decode(z) - picture).abs().max() < 1e-4
