"""The base of training diffusion models of latents or pictures: a loss at random timesteps."""

import torch
from torch import Tensor

from ldm.diffusion.losses import min_snr_weight
from ldm.models.diffusion import DiffusionModel
from ldm.training.base import Optimisation, Training
from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource

BINS = 10  # bins of timesteps with a validation loss each: their losses differ by orders of magnitude


class DiffusionTraining(Training):
    """Training at random timesteps. Subclasses define `loss`.

    Args:
        model: a diffusion model of latents or pictures.
        min_snr_gamma: gamma of Min-SNR loss weighting (2303.09556); None trains with the plain loss.
        uncond_probability: probability of dropping a sample's condition, for classifier-free guidance (2207.12598).
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
                f"model.params.image_size {side}: expected the size of the data's pictures, found {found} pixels"
            )

    def loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        """Return the mean squared errors (B,) at timesteps t (B,), without the condition where `drop` (B,) is true."""
        raise NotImplementedError

    def alpha_cumprod(self, t: Tensor) -> Tensor:
        """Return alphas_cumprod at t (B,) on the CPU, as float32 on the device in any precision of the networks."""
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
        """Draw timesteps (B,), and the importance weights of their losses."""
        return noise.randint(self.model.schedule.num_timesteps), 1.0

    def note_losses(self, batch_index: int, t: Tensor, losses: Tensor) -> None:
        """Record the losses of a micro-batch for later draws of timesteps; by default do nothing."""

    def weighted_loss(self, batch: dict, t: Tensor, drop: Tensor, noise: NoiseSource) -> Tensor:
        """Return the losses (B,) to minimise."""
        return self.loss(batch, t, drop, noise) * self.weight(t)

    def weight(self, t: Tensor) -> Tensor | float:
        if self.min_snr_gamma is None:
            return 1.0
        return min_snr_weight(self.alpha_cumprod(t), self.min_snr_gamma, self.model.prediction)

    def on_validation_epoch_start(self) -> None:
        self.sums = torch.zeros(2, BINS, device=self.device)  # sum and number of losses in each bin

    def validation_step(self, batch: dict, batch_index: int) -> None:
        """Sum the unweighted losses of the conditional model; item k always gets the same noise, in bin k % BINS."""
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
