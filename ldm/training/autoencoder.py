"""Training of the KL autoencoder (Rombach et al., 2112.10752, section 3.1)."""

import torch
from torch import Tensor

from ldm.models.autoencoder import AutoencoderKL
from ldm.training.base import Optimisation, Training
from ldm.utils.random import generator


class AutoencoderTraining(Training):
    """L1 between image and reconstruction, L1 between their differences of neighbouring pixels, and a small KL term.

    The difference term keeps edges: without it a small autoencoder settles on blurred shapes first.

    Args:
        kl_weight: of KL(posterior || N(0, 1)), per latent element, against the per-pixel L1.
        edge_weight: of the L1 between horizontal and vertical differences.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        kl_weight: float,
        edge_weight: float,
        optimisation: Optimisation,
    ):
        super().__init__(optimisation)
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight
        self.edge_weight = edge_weight

    def weights(self) -> dict[str, Tensor]:
        return self.autoencoder.state_dict(prefix="autoencoder.")

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        image = batch["image"]
        posterior = self.autoencoder.encode(image)
        draw = generator(self.seed, "posterior", self.global_step, batch_index, self.global_rank)
        noise = torch.randn(posterior.mean.shape, generator=draw).to(image.device)
        reconstruction = self.autoencoder.decode(posterior.sample(noise)).float()
        pixel = (reconstruction - image).abs().mean()
        edge = sum((reconstruction.diff(dim=d) - image.diff(dim=d)).abs().mean() for d in (-1, -2))
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        self.report(loss=pixel + self.edge_weight * edge + self.kl_weight * kl, l1=pixel, kl=kl)
        return pixel + self.edge_weight * edge + self.kl_weight * kl

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """The round trip's peak signal-to-noise ratio in dB; the latents' standard deviation (1 / `scale_factor`)."""
        image = batch["image"]
        z = self.autoencoder.encode(image).mode()
        reconstruction = self.autoencoder.decode(z).float().clamp(-1, 1)
        mse = ((reconstruction - image) / 2).square().flatten(1).mean(1)
        psnr = (-10 * mse.log10()).mean()
        self.log_dict({"val/psnr": psnr, "val/latent_std": z.float().std()}, prog_bar=True, batch_size=len(image))
