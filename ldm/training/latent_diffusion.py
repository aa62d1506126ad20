"""Training of latent diffusion models (Rombach et al., 2112.10752, section 3.2): unconditional or text-to-image.

For editing by example see `ldm.training.exemplar`.
"""

import torch
from torch import Tensor, nn

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance
from ldm.diffusion.losses import diffusion_target
from ldm.diffusion.process import q_sample
from ldm.diffusion.schedule import sampling_timesteps
from ldm.models.attention import AttentionBlock, SpatialTransformer
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.tokenizer import Tokenizer
from ldm.samplers.ddim import ddim
from ldm.training.base import Optimisation
from ldm.training.diffusion import DiffusionTraining, batch_length
from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource, key_seed

TRAIN = ("all", "attention")


class LatentDiffusionTraining(DiffusionTraining):
    """Unconditional training: mean squared error on the predicted eps or v at a random timestep.

    Batches hold "image" (B, 3, H, W) in [-1, 1].

    Args:
        model: a model whose autoencoder and conditioner's encoder are to be frozen.
        min_snr_gamma, uncond_probability: see `DiffusionTraining`.
        train: "all" of the UNet, or its "attention" layers and its first convolution, which new input channels need.
        panel_steps, panel_guidance: DDIM steps and guidance scale of the pictures on the panel.
    """

    posteriors = 1  # latents sampled per item

    def __init__(
        self,
        model: LatentDiffusion,
        optimisation: Optimisation,
        min_snr_gamma: float | None = None,
        train: str = "all",
        uncond_probability: float = 0.0,
        panel_steps: int = 20,
        panel_guidance: float = 5.0,
    ):
        super().__init__(model, optimisation, min_snr_gamma, uncond_probability)
        if train not in TRAIN:
            raise UserError(f"train {train!r}: expected one of {', '.join(TRAIN)}")
        self.panel_steps, self.panel_guidance = panel_steps, panel_guidance
        model.autoencoder.requires_grad_(False)
        if model.conditioner is not None:
            model.conditioner.encoder.requires_grad_(False)
        if train == "attention":
            keep_attention(model.unet)

    def latents(self, batch: dict, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the clean latent (B, c, h, w), and the UNet's additional input channels if it has any.

        noise (B, posteriors, c, h, w) samples the posteriors.
        """
        if "z" in batch:  # from the latent cache
            return batch["z"].float(), None
        self.check_size(batch["image"])
        with torch.no_grad():
            return self.model.encode(batch["image"], noise[:, 0]), None

    def frozen_outputs(self, batch: dict, noise: Tensor) -> dict[str, Tensor]:
        """Return the frozen networks' outputs for a batch: items of the latent cache.

        noise: see `latents`.
        """
        return {"z": self.latents(batch, noise)[0]}

    def context(self, batch: dict, drop: Tensor) -> Tensor | None:
        """Return the UNet's context tokens (B, L, C); the condition is dropped where `drop` (B,) is true."""
        return None

    def loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean squared errors (B,) at the timesteps t (B,)."""
        eps, *posteriors = noise.randn(1 + self.posteriors, *self.latent_shape).to(self.device).unbind(1)
        alpha_cumprod = self.alpha_cumprod(t).view(-1, 1, 1, 1)
        t, drop = t.to(self.device), drop.to(self.device)
        z, concat = self.latents(batch, torch.stack(posteriors, 1))
        x = q_sample(z, eps, alpha_cumprod)
        x = x if concat is None else torch.cat([x, concat], dim=1)
        prediction = self.model.unet(x, t, self.context(batch, drop)).float()
        target = diffusion_target(self.model.prediction, z, eps, alpha_cumprod)
        return (prediction - target).square().mean((1, 2, 3))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.model.latent_shape(self.model.image_size, self.model.image_size)

    def sample(self, batch: dict) -> Tensor:
        """Sample pictures (B, 3, H, W) in [-1, 1] with the conditions of a batch and fixed noise."""
        model, n = self.model, batch_length(batch)
        noise = NoiseSource(key_seed(self.seed, "panel", item) for item in range(n))
        start, *posteriors = noise.randn(1 + self.posteriors, *self.latent_shape).to(self.device).unbind(1)
        _, concat = self.latents(batch, torch.stack(posteriors, 1))
        everywhere = torch.ones(n, dtype=torch.bool, device=self.device)
        cond, uncond = self.context(batch, ~everywhere), self.context(batch, everywhere)
        denoise = classifier_free_guidance(
            Denoiser(model.unet, model.schedule, model.prediction, concat),
            cond,
            uncond,
            scale=1.0 if cond is None else self.panel_guidance,
        )
        timesteps = sampling_timesteps(self.panel_steps, model.schedule.num_timesteps)
        return model.decode(ddim(denoise, start, model.schedule, timesteps)).float().clamp(-1, 1)

    def pictures(self, batch: dict) -> dict[str, Tensor]:
        return {"sample": self.sample(batch)}


class TextTraining(LatentDiffusionTraining):
    """Text-to-image training: batches hold "image" and "caption", a list of strings; a dropped caption is empty."""

    def context(self, batch: dict, drop: Tensor) -> Tensor:
        ids = self.ids(batch).to(drop.device)
        ids = torch.where(drop[:, None], self.tokenizer([""]).to(drop.device), ids)
        with torch.no_grad():
            return self.model.conditioner.encode(ids)

    def ids(self, batch: dict) -> Tensor:
        """Return the captions' tokens, (B, L) int64."""
        return batch["ids"] if "ids" in batch else self.tokenizer(batch["caption"])

    def frozen_outputs(self, batch: dict, noise: Tensor) -> dict[str, Tensor]:
        return {**super().frozen_outputs(batch, noise), "ids": self.ids(batch)}

    @property
    def tokenizer(self) -> Tokenizer:
        return self.model.conditioner.encoder.tokenizer

    def pictures(self, batch: dict) -> dict[str, Tensor]:
        return {} if "z" in batch else {"image": batch["image"], **super().pictures(batch)}


def keep_attention(unet: nn.Module) -> None:
    """Freeze a UNet except its attention layers and its first convolution."""
    unet.requires_grad_(False)
    unet.input_blocks[0].requires_grad_(True)
    for module in unet.modules():
        if isinstance(module, AttentionBlock | SpatialTransformer):
            module.requires_grad_(True)
