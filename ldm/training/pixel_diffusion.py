"""Training of diffusion models of pictures, as improved DDPMs (Nichol and Dhariwal, 2102.09672)."""

from typing import Any

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.losses import diffusion_target
from ldm.diffusion.process import model_x0, q_sample
from ldm.diffusion.schedule import strided_timesteps
from ldm.diffusion.variance import split
from ldm.diffusion.vlb import bound_term
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.samplers.ddpm import ddpm
from ldm.training.base import Optimisation
from ldm.training.diffusion import DiffusionTraining, batch_length
from ldm.training.timesteps import LossAwareSampler, check_timesteps
from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource, key_seed

BOUND = 1e-3  # weight of the sum of the bound's terms in the hybrid loss (section 3.1)


class PixelDiffusionTraining(DiffusionTraining):
    """Mean squared error on eps or v; a learned variance is trained by the variational bound beside it.

    That is the hybrid loss: the bound's term does not move the prediction, and min-SNR does not weigh it. Batches hold
    "image" (B, 3, H, W) in [-1, 1].

    Args:
        model: without classes.
        min_snr_gamma: see `DiffusionTraining`.
        timesteps: how those of the steps are drawn: "uniform", or "loss_aware", see `LossAwareSampler`.
        panel_steps: DDPM steps of the pictures on the panel, 1 to as many as the schedule has.

    Raises:
        UserError: a value is out of range, or the model knows classes.
    """

    def __init__(
        self,
        model: PixelDiffusion,
        optimisation: Optimisation,
        min_snr_gamma: float | None = None,
        timesteps: str = "uniform",
        panel_steps: int = 50,
    ):
        super().__init__(model, optimisation, min_snr_gamma)
        T = model.schedule.num_timesteps
        if model.num_classes:
            raise UserError(
                f"this training tells no classes, the UNet has {model.num_classes}: set num_classes to null"
            )
        if not isinstance(panel_steps, int) or not 1 <= panel_steps <= T:
            raise UserError(f"panel_steps {panel_steps}: expected a whole number from 1 to {T}")
        loss_aware = check_timesteps(timesteps) == "loss_aware"
        self.timesteps = LossAwareSampler(T) if loss_aware else None
        self._seen: list[Tensor] = []  # of a step's batch that is accumulated in parts, see `note_losses`
        self.panel_steps = panel_steps

    def loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        return self.losses(batch, t, noise)[0]

    def weighted_loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        simple, bound = self.losses(batch, t, noise)
        loss = simple * self.weight(t)
        return loss if bound is None else loss + BOUND * self.model.schedule.num_timesteps * bound

    def losses(self, batch: dict, t: Tensor, noise: NoiseSource) -> tuple[Tensor, Tensor | None]:
        """(B,) squared errors; and terms of the variational bound in bits per dimension, if the variance is learned."""
        model, x0 = self.model, batch["image"]
        self.check_size(x0)
        eps = noise.randn(*x0.shape[1:]).to(x0)
        alpha_cumprod = self.alpha_cumprod(t).view(-1, 1, 1, 1)
        x = q_sample(x0, eps, alpha_cumprod)
        prediction, predicted_variance = split(model.unet(x, t.to(self.device)).float(), x.shape[1])
        target = diffusion_target(model.prediction, x0, eps, alpha_cumprod)
        simple = (prediction - target).square().mean((1, 2, 3))
        if predicted_variance is None:
            return simple, None
        x0_predicted = model_x0(model.prediction, x, prediction.detach(), alpha_cumprod)
        # not clipped, so that what lies beyond the bounds is told to come back
        return simple, bound_term(x0, x0_predicted, predicted_variance, t, model.schedule, "learned_range")

    def draw_timesteps(self, noise: NoiseSource) -> tuple[Tensor, Tensor | float]:
        if self.timesteps is None:
            return super().draw_timesteps(noise)
        t, share = self.timesteps.draw(noise)
        return t, share.to(self.device)

    def note_losses(self, batch_index: int, t: Tensor, losses: Tensor) -> None:
        """The whole batch of a step, of all processes, is noted in the order of its places, whoever had them.

        The draws of a step know nothing of the same step. Each step waits for the device here.
        """
        if self.timesteps is None:
            return
        places = self.places(batch_index, len(t))
        self._seen.append(torch.stack([places.to(losses), t.to(losses), losses]))  # whole numbers below 2^24 are exact
        if len(self._seen) < self.trainer.accumulate_grad_batches:
            return
        seen, self._seen = self.all_gather(torch.cat(self._seen, dim=1)), []  # (3, n), or (processes, 3, n)
        places, t, losses = seen.movedim(-2, 0).flatten(1).cpu()
        order = places.argsort()
        self.timesteps.update(t[order].long(), losses[order])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.timesteps is not None:
            checkpoint["timesteps"] = self.timesteps.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.timesteps is not None:
            self.timesteps.load_state_dict(checkpoint["timesteps"])

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n pictures (n, 3, H, W) in [-1, 1]; their noise is fixed."""
        model, noise = self.model, NoiseSource(key_seed(self.seed, "panel", item) for item in range(n))
        start = noise.randn(*model.latent_shape(model.image_size, model.image_size)).to(self.device)
        denoise = Denoiser(model.unet, model.schedule, model.prediction, clip_x0=True, keep_variance=True)
        timesteps = strided_timesteps(self.panel_steps, model.schedule.num_timesteps)
        x = ddpm(denoise, start, model.schedule, timesteps, variance=model.variance, noise=noise.randn)
        return x.clamp(-1, 1)

    def pictures(self, batch: dict) -> dict[str, Tensor]:
        return {"sample": self.sample(batch_length(batch))}
