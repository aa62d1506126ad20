"""Self-supervised training to paint an exemplar into the hole of an image (Paint by Example, 2211.13227)."""

import torch
from torch import Tensor, nn

from ldm.models.latent_diffusion import LatentDiffusion
from ldm.training.base import Optimisation
from ldm.training.latent_diffusion import LatentDiffusionTraining
from ldm.utils.clip import clip_denormalise
from ldm.utils.errors import UserError


class ExemplarTraining(LatentDiffusionTraining):
    """Mean squared error on the noise; the exemplar is dropped per sample for classifier-free guidance.

    Trained: UNet, mapper, final_ln, proj_out and learnable_vector. Frozen: the autoencoder, CLIP, and, if the context
    is one token, the query, key and norm of the cross-attention, whose gradient is exactly zero (a softmax over one
    token is 1).
    Batches hold items of `ldm.data.recipe.Recipe`, or of a latent cache made from them.

    Args:
        model: a model with a 9-channel UNet and an `ExemplarConditioner`.
        uncond_probability: 0.2 in the paper; for the others see `LatentDiffusionTraining`.
    """

    posteriors = 2  # of the image and of the masked image

    def __init__(
        self,
        model: LatentDiffusion,
        optimisation: Optimisation,
        uncond_probability: float,
        min_snr_gamma: float | None = None,
        train: str = "all",
        panel_steps: int = 20,
        panel_guidance: float = 5.0,
    ):
        super().__init__(model, optimisation, min_snr_gamma, train, uncond_probability, panel_steps, panel_guidance)
        if model.conditioner.length == 1:
            for dead in one_token_dead_weights(model.unet):
                dead.requires_grad_(False)

    def latents(self, batch: dict, noise: Tensor) -> tuple[Tensor, Tensor]:
        if "z" in batch:  # from the latent cache
            return batch["z"].float(), batch["concat"].float()
        self.check_size(batch["image"])
        return encode_pictures(self.model, batch, noise)

    def frozen_outputs(self, batch: dict, noise: Tensor) -> dict[str, Tensor]:
        z, concat = self.latents(batch, noise)
        return {"z": z, "concat": concat, "tokens": self.model.conditioner.encode(batch["exemplar"])}

    def context(self, batch: dict, drop: Tensor) -> Tensor:
        conditioner = self.model.conditioner
        if "tokens" in batch:  # the class token comes first: a cache of all tokens has it too
            tokens = batch["tokens"][:, : conditioner.length].float()
            if tokens.shape[1] < conditioner.length:
                raise UserError(
                    f"latent cache: expected {conditioner.length} tokens per exemplar, found {tokens.shape[1]}"
                )
        else:
            with torch.no_grad():
                tokens = conditioner.encode(batch["exemplar"])
        return torch.where(drop[:, None, None], conditioner.learnable_vector, conditioner.bottleneck(tokens))

    def pictures(self, batch: dict) -> dict[str, Tensor]:
        if "z" in batch:
            return {}
        image = batch["image"]
        return {
            "image": image,
            "masked image": image * (1 - batch["mask"]),
            "exemplar": (clip_denormalise(batch["exemplar"]) * 2 - 1).clamp(-1, 1),
            "sample": self.sample(batch),
        }


@torch.no_grad()
def encode_pictures(model: LatentDiffusion, batch: dict, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Encode image and mask by the frozen autoencoder: the latent, and the UNet's additional channels.

    noise (B, 2, c, h, w) samples the posteriors of the image and of the masked image.
    """
    z = model.encode(batch["image"], noise[:, 0])
    return z, model.inpainting_channels(batch["image"], batch["mask"], noise[:, 1])


def one_token_dead_weights(unet: nn.Module) -> list[nn.Module]:
    """List query, key and norm of every cross-attention: they have no gradient if the context is one token."""
    blocks = [block for block in unet.modules() if hasattr(block, "attn2")]
    return [dead for block in blocks for dead in (block.attn2.to_q, block.attn2.to_k, block.norm2)]
