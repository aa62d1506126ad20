"""What training a diffusion model comes down to, of latents or of pictures: a loss at random timesteps."""

import torch
from torch import Tensor

from ldm.diffusion.losses import min_snr_weight
from ldm.models.diffusion import DiffusionModel
from ldm.training.base import Optimisation, Training
from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource

BINS = 10  # of timesteps, in which validation losses are told apart: their sizes differ by orders of magnitude


class DiffusionTraining(Training):
    """Subclasses define `loss`.

    Args:
        model: of latents or of pictures.
        min_snr_gamma: Min-SNR loss weighting (2303.09556); None trains with the plain loss.
        uncond_probability: how often a sample's condition is dropped, for classifier-free guidance (2207.12598).
    """

    def __init__(
        self,
        model: DiffusionModel,
        optimisation: Optimisation,
        min_snr_gamma: float | None = None,
        uncond_probability: float = 0.0,
    ):
        super().__init__(optimisation)
        self.model = model
        self.min_snr_gamma, self.uncond_probability = min_snr_gamma, uncond_probability

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def check_size(self, image: Tensor) -> None:
        if image.shape[-2:] != (side := self.model.image_size,) * 2:
            found = "x".join(map(str, image.shape[-2:]))
            raise UserError(
                f"the data's pictures are {found} pixels, model.params.image_size is {side}: set both alike"
            )

    def loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        """(B,) mean squared errors at the timesteps t (B,); without the condition where `drop` (B,) is true."""
        raise NotImplementedError

    def alpha_cumprod(self, t: Tensor) -> Tensor:
        """alphas_cumprod at t (B,) on the CPU: float32 on the device, whatever precision the networks have."""
        return self.model.schedule.alphas_cumprod[t].float().to(self.device)

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        n = batch_length(batch)
        noise = self.draws(batch_index, n)
        t, share = self.draw_timesteps(noise)
        drop = noise.rand() < self.uncond_probability
        losses = self.weighted_loss(batch, t, drop, noise)
        self.note_losses(batch_index, t, losses.detach())
        loss = (losses * share).mean()
        self.report(loss=loss)
        return loss

    def draw_timesteps(self, noise: NoiseSource) -> tuple[Tensor, Tensor | float]:
        """Timesteps (B,), and what their losses are multiplied by to make up for how often they are drawn."""
        return noise.randint(self.model.schedule.num_timesteps), 1.0

    def note_losses(self, batch_index: int, t: Tensor, losses: Tensor) -> None:
        """What the items of a step, or of a part of one, have shown: for later draws. Nothing by default."""

    def weighted_loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        """(B,) what is minimised."""
        return self.loss(batch, t, drop, noise) * self.weight(t)

    def weight(self, t: Tensor) -> Tensor | float:
        if self.min_snr_gamma is None:
            return 1.0
        return min_snr_weight(self.alpha_cumprod(t), self.min_snr_gamma, self.model.prediction)

    def on_validation_epoch_start(self) -> None:
        self.sums = torch.zeros(2, BINS, device=self.device)  # of losses, and how many they are

    def validation_step(self, batch: dict, batch_index: int) -> None:
        """Losses of the conditional model without weighting; item k always meets the same noise, in bin k % BINS."""
        n, T = batch_length(batch), self.model.schedule.num_timesteps
        places, noise = self.places(batch_index, n, "validation"), self.draws(batch_index, n, "validation")
        bins = places % BINS
        t = ((bins + noise.rand()) * T / BINS).long()
        loss = self.loss(batch, t, torch.zeros(n, dtype=torch.bool), noise)
        counted = (places < len(self.trainer.datamodule.validation)).to(loss)
        self.sums.index_add_(1, bins.to(loss.device), torch.stack([loss * counted, counted]))

    def on_validation_epoch_end(self) -> None:
        losses, counts = self.trainer.strategy.reduce(self.sums, reduce_op="sum").cpu()
        self.log("val/loss", losses.sum() / counts.sum())
        width = self.model.schedule.num_timesteps // BINS
        self.log_dict({f"val/loss_t{width * k:03d}": losses[k] / counts[k] for k in range(BINS) if counts[k]})


def batch_length(batch: dict) -> int:
    return len(next(iter(batch.values())))
