"""Training of the KL autoencoder (Rombach et al., 2112.10752, section 3.1)."""

import torch
from torch import Tensor, nn

from ldm.models.autoencoder import AutoencoderKL
from ldm.training.base import Training
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
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        cooldown: float,
        seed: int,
    ):
        super().__init__(learning_rate, weight_decay, warmup_steps, cooldown, seed)
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight
        self.edge_weight = edge_weight

    def weights(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder}

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        image = batch["image"]
        posterior = self.autoencoder.encode(image)
        draw = generator(self.seed, "posterior", self.global_step, self.global_rank)
        noise = torch.randn(posterior.mean.shape, generator=draw).to(image.device)
        reconstruction = self.autoencoder.decode(posterior.sample(noise)).float()
        pixel = (reconstruction - image).abs().mean()
        edge = sum((reconstruction.diff(dim=d) - image.diff(dim=d)).abs().mean() for d in (-1, -2))
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        self.report(loss=pixel + self.edge_weight * edge + self.kl_weight * kl, l1=pixel, kl=kl)
        return pixel + self.edge_weight * edge + self.kl_weight * kl

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Peak signal-to-noise ratio of the round trip through the posterior's mean, per picture, in dB."""
        image = batch["image"]
        reconstruction = self.autoencoder.decode(self.autoencoder.encode(image).mode()).float().clamp(-1, 1)
        mse = ((reconstruction - image) / 2).square().flatten(1).mean(1)
        self.log("val/psnr", (-10 * mse.log10()).mean(), prog_bar=True, batch_size=len(image))
