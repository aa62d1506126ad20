"""Self-supervised training of a latent diffusion model in the hole of an image (Paint by Example, 2211.13227)."""

import torch
from torch import Tensor, nn

from ldm.diffusion.losses import diffusion_target, min_snr_weight
from ldm.diffusion.process import q_sample
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.training.base import Optimisation, Training
from ldm.utils.random import generator


class ExemplarTraining(Training):
    """Mean squared error on the noise; the exemplar is dropped per sample for classifier-free guidance.

    Trained: UNet, mapper, final_ln, proj_out and learnable_vector. Frozen: the autoencoder, CLIP, and the query, key
    and norm of the one-token cross-attention, whose gradient is exactly zero (a softmax over one token is 1).

    Args:
        model: with a 9-channel UNet and an `ExemplarConditioner`.
        uncond_probability: how often the exemplar is replaced by the learnable vector (0.2 in the paper).
        min_snr_gamma: Min-SNR loss weighting (2303.09556); None trains with the plain loss.
    """

    def __init__(
        self,
        model: LatentDiffusion,
        uncond_probability: float,
        min_snr_gamma: float | None,
        optimisation: Optimisation,
    ):
        super().__init__(optimisation)
        self.model = model
        self.uncond_probability = uncond_probability
        self.min_snr_gamma = min_snr_gamma
        self.register_buffer("alphas_cumprod", model.schedule.alphas_cumprod.float(), persistent=False)
        for frozen in (model.autoencoder, model.conditioner.encoder, *one_token_dead_weights(model.unet)):
            frozen.requires_grad_(False)

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def latents(self, batch: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The clean latent (B, c, h, w), the UNet's other channels (B, c + 1, h, w) and the class token (B, width).

        `noise` (2, B, c, h, w) samples the two posteriors. A batch from the latent cache holds all three already.
        """
        if "z" in batch:
            return batch["z"].float(), batch["concat"].float(), batch["class_token"].float()
        return encode_batch(self.model, batch, noise)

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        loss = self.loss(batch, generator(self.seed, "step", self.global_step, batch_index, self.global_rank)).mean()
        self.report(loss=loss)
        return loss

    def loss(self, batch: dict[str, Tensor], draw: torch.Generator) -> Tensor:
        """(B,) losses; t, noise, posterior samples and dropped conditions all come from `draw`."""
        n, shape = (
            len(next(iter(batch.values()))),
            self.model.latent_shape(self.model.image_size, self.model.image_size),
        )
        t = torch.randint(self.model.schedule.num_timesteps, (n,), generator=draw)
        drop = torch.rand(n, generator=draw) < self.uncond_probability
        noise, *posterior_noise = torch.randn(3, n, *shape, generator=draw).to(self.device)
        t, drop = t.to(self.device), drop.to(self.device)

        z, concat, class_token = self.latents(batch, torch.stack(posterior_noise))
        conditioner = self.model.conditioner
        context = torch.where(drop[:, None, None], conditioner.learnable_vector, conditioner.bottleneck(class_token))
        alpha_cumprod = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        x = torch.cat([q_sample(z, noise, alpha_cumprod), concat], dim=1)
        prediction = self.model.unet(x, t, context).float()
        error = (prediction - diffusion_target(self.model.prediction, z, noise, alpha_cumprod)).square().mean((1, 2, 3))
        if self.min_snr_gamma is not None:
            error = error * min_snr_weight(self.alphas_cumprod[t], self.min_snr_gamma, self.model.prediction)
        return error

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        loss = self.loss(batch, generator(self.seed, "validation", batch_index))
        self.log("val/loss", loss.mean(), prog_bar=True, batch_size=len(loss))


@torch.no_grad()
def encode_batch(model: LatentDiffusion, batch: dict[str, Tensor], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the frozen networks make of (image, mask, exemplar): latent, UNet's other channels, class token."""
    z = model.encode(batch["image"], noise[0])
    concat = model.inpainting_channels(batch["image"], batch["mask"], noise[1])
    return z, concat, model.conditioner.encoder(batch["exemplar"])


def one_token_dead_weights(unet: nn.Module) -> list[nn.Module]:
    """Query, key and norm of every cross-attention: they get no gradient when the context is one token."""
    blocks = [block for block in unet.modules() if hasattr(block, "attn2")]
    return [dead for block in blocks for dead in (block.attn2.to_q, block.attn2.to_k, block.norm2)]
