"""Whole edits against diffusers' `PaintByExamplePipeline`: the same weights, pictures, timesteps and generator.

The model is of toy width but has every kind of layer of Paint by Example, and diffusers' own converters read its
weights by their official names. The pipeline shrinks the mask by nearest neighbour where the original, and we, do it
bilinearly: the masks here are made of whole latent pixels, for which both are exact.
"""

import sys

import pytest
import torch

from ldm.checkpoints.keymaps import official
from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.editors.exemplar import ExemplarEditor
from ldm.models.autoencoder import AutoencoderKL
from ldm.models.clip_image import ClipImageEncoder, ExemplarConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.unet import UNet
from ldm.runs.settings import edit_settings
from tests.golden_weights import fill

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

SCALE_FACTOR, CONTEXT, HEADS = 0.18215, 24, 4
BATCH, HEIGHT, WIDTH, EXEMPLAR = 2, 64, 96, 28  # pixels; the autoencoder divides by 8
CLIP_WIDTH, CLIP_LAYERS = 32, 9  # from the depth follows that of diffusers' mapper: (9 + 1) // 5 = 2 blocks

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENT_DIFFUSION = {**BETAS, "set_alpha_to_one": False, "steps_offset": 1}
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(**LATENT_DIFFUSION, clip_sample=False),
    "plms": lambda: diffusers.PNDMScheduler(**LATENT_DIFFUSION, skip_prk_steps=True),
    "dpm_solver": lambda: diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", final_sigmas_type="zero", lower_order_final=True
    ),
}


@pytest.fixture(scope="module")
def model():
    clip = ClipImageEncoder(EXEMPLAR, patch_size=7, width=CLIP_WIDTH, layers=CLIP_LAYERS, heads=HEADS)
    model = LatentDiffusion(
        unet=UNet(
            9, 4, 32, 1, attention_resolutions=(1, 2), channel_mult=(1, 2, 2), num_heads=HEADS, context_dim=CONTEXT
        ),
        autoencoder=AutoencoderKL(32, (1, 1, 2, 2), num_res_blocks=1, z_channels=4, embed_dim=4),
        conditioner=ExemplarConditioner(clip, CONTEXT, mapper_layers=2),
        schedule=Schedule.scaled_linear(),
        scale_factor=SCALE_FACTOR,
        image_size=64,
    )
    return fill(model)


@pytest.fixture(scope="module")
def components(model):
    """The pipeline's networks: strict loading gives every tensor of theirs, the count finds any of ours left over."""
    weights = {}
    for name, tensor in model.state_dict().items():
        sources = official(name)  # several where we keep q, k and v in one tensor
        weights.update(zip(sources, tensor.chunk(len(sources)), strict=True))
    components = {"unet": their_unet(weights), "vae": their_vae(weights), "image_encoder": their_encoder(weights)}
    found = sum(parameter.numel() for network in components.values() for parameter in network.parameters())
    assert found == sum(parameter.numel() for parameter in model.parameters())
    return {name: network.eval().requires_grad_(False) for name, network in components.items()}


def their_unet(weights):
    unet = diffusers.UNet2DConditionModel(
        in_channels=9,
        out_channels=4,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT,
        attention_head_dim=HEADS,  # the number of heads, despite its name
    )
    unet.load_state_dict(diffusers.loaders.single_file_utils.convert_ldm_unet_checkpoint(weights, unet.config))
    return unet


def their_vae(weights):
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=SCALE_FACTOR,
    )
    vae.load_state_dict(diffusers.loaders.single_file_utils.convert_ldm_vae_checkpoint(weights, vae.config))
    return vae


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
    nested = any(name.startswith("model.vision_model.") for name in encoder.state_dict())  # before transformers 5
    renamed = {
        "cond_stage_model.transformer.vision_model.": "model.vision_model." if nested else "model.",
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


class Noise:
    """Draws whole batches from one generator, as diffusers does; the order of the draws is the same."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(1)

    def randn(self, *shape):
        return torch.randn(BATCH, *shape, generator=self.generator)


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
        monkeypatch.setattr("ldm.editors.exemplar.sampling_timesteps", lambda S, T: timesteps)
    else:
        assert timesteps.tolist() == sampling_timesteps(S).tolist()
    editor = ExemplarEditor(model, edit_settings(sampler=sampler, steps=S, guidance_scale=5.0, eta=eta))
    z = editor.sample(inputs["image"], inputs["mask"], inputs["exemplar"], Noise(), editor.settings)
    assert (z - expected).abs().max() < 3e-5 * expected.abs().max()

    picture = pipeline.vae.decode(expected / SCALE_FACTOR).sample
    assert (editor.decode(z) - picture).abs().max() < 1e-4
