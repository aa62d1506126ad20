"""diffusers' networks of toy width with our weights, by their official names and diffusers' own converters."""

import diffusers
import torch
from torch import Tensor, nn

from ldm.checkpoints.keymaps import official
from ldm.models.autoencoder import AutoencoderKL
from ldm.models.unet import UNet

SCALE_FACTOR, CONTEXT, HEADS = 0.18215, 24, 4

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENT_DIFFUSION = {**BETAS, "set_alpha_to_one": False, "steps_offset": 1}
SCHEDULERS = {
    "ddim": lambda: diffusers.DDIMScheduler(**LATENT_DIFFUSION, clip_sample=False),
    "plms": lambda: diffusers.PNDMScheduler(**LATENT_DIFFUSION, skip_prk_steps=True),
    "dpm_solver": lambda: diffusers.DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", final_sigmas_type="zero", lower_order_final=True
    ),
}


def our_unet(in_channels: int) -> UNet:
    """With every kind of layer of Stable Diffusion's."""
    return UNet(
        in_channels,
        4,
        32,
        1,
        attention_resolutions=(1, 2),
        channel_mult=(1, 2, 2),
        num_heads=HEADS,
        context_dim=CONTEXT,
    )


def our_vae() -> AutoencoderKL:
    return AutoencoderKL(32, (1, 1, 2, 2), num_res_blocks=1, z_channels=4, embed_dim=4)


def official_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors as its official file holds them."""
    weights = {}
    for name, tensor in model.state_dict().items():
        sources = official(name)  # several where we keep q, k and v in one tensor
        weights.update(zip(sources, tensor.chunk(len(sources)), strict=True))
    return weights


def checked(components: dict[str, nn.Module], model: nn.Module) -> dict[str, nn.Module]:
    """Strict loading gives every tensor of theirs, the count finds any of ours left over."""
    found = sum(parameter.numel() for network in components.values() for parameter in network.parameters())
    assert found == sum(parameter.numel() for parameter in model.parameters())
    return {name: network.eval().requires_grad_(False) for name, network in components.items()}


def their_unet(weights: dict[str, Tensor], in_channels: int) -> nn.Module:
    unet = diffusers.UNet2DConditionModel(
        in_channels=in_channels,
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


def their_vae(weights: dict[str, Tensor]) -> nn.Module:
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


class Noise:
    """Draws whole batches from one generator, as diffusers does; in the order in which it is asked."""

    def __init__(self, batch: int, seed: int):
        self.batch = batch
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator)
