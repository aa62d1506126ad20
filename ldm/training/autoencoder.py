"""Training of the KL autoencoder (Rombach et al., 2112.10752, section 3.1 and appendix G)."""

from torch import Tensor
from torch.optim import Optimizer

from ldm.models.autoencoder import AutoencoderKL
from ldm.training.adversarial import Adversarial
from ldm.training.base import Optimisation, Training
from ldm.training.perceptual import Perceptual


class AutoencoderTraining(Training):
    """L1 between image and reconstruction, L1 between their differences of neighbouring pixels, and a small KL term.

    The difference term keeps edges: without it a small autoencoder first settles on blurred shapes. LDM's recipe uses a
    perceptual distance and a discriminator instead.

    All losses are means, over pixel values or latent elements. LDM sums both over a picture, so its KL weight is to be
    multiplied by (latent elements) / (pixel values): its 1e-6 becomes 1e-6 * (4 * 32 * 32) / (3 * 256 * 256) = 2.1e-8
    for 256x256 pixels and a downsampling factor of 8.

    Args:
        kl_weight: weight of KL(posterior || N(0, 1)), per latent element, against the per-pixel L1.
        edge_weight: weight of the L1 between horizontal and vertical differences.
        perceptual: distance between pictures that is added to the L1.
        adversarial: discriminator that is trained alongside the autoencoder.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        kl_weight: float,
        edge_weight: float,
        optimisation: Optimisation,
        perceptual: Perceptual | None = None,
        adversarial: Adversarial | None = None,
    ):
        super().__init__(optimisation)
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight
        self.edge_weight = edge_weight
        self.perceptual = perceptual
        self.adversarial = adversarial

    def weights(self) -> dict[str, Tensor]:
        return self.autoencoder.state_dict(prefix="autoencoder.")

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor | dict[str, Tensor]:
        image = batch["image"]
        posterior = self.autoencoder.encode(image)
        noise = self.draws(batch_index, len(image)).randn(*posterior.mean.shape[1:]).to(image.device)
        reconstruction = self.autoencoder.decode(posterior.sample(noise)).float()

        pixel = (reconstruction - image).abs().mean()
        edge = sum((reconstruction.diff(dim=d) - image.diff(dim=d)).abs().mean() for d in (-1, -2))
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        parts = {"l1": pixel, "kl": kl}
        nll = pixel + self.edge_weight * edge
        if self.perceptual is not None:
            parts["lpips"] = self.perceptual(reconstruction, image).mean()
            nll = nll + self.perceptual.weight * parts["lpips"]
        loss = nll + self.kl_weight * kl

        if self.adversarial is None:
            self.report(loss=loss, **parts)
            return loss
        last_layer = self.autoencoder.decoder.conv_out.weight
        adversarial, adversarial_parts = self.adversarial(self.global_step, image, reconstruction, nll, last_layer)
        self.report(loss=loss, **parts, **adversarial_parts)
        return {"loss": loss + adversarial, "watched": loss}  # the size of an adversarial loss is meaningless

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.adversarial is not None:
            self.adversarial.before_optimizer_step(self.global_step)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        """Log the round trip's PSNR in dB, its LPIPS if in use, and the latents' deviation (1 / `scale_factor`)."""
        image = batch["image"]
        z, reconstruction = self.round_trip(image)
        mse = ((reconstruction - image) / 2).square().flatten(1).mean(1)
        values = {"val/psnr": (-10 * mse.log10()).mean(), "val/latent_std": z.float().std()}
        if self.perceptual is not None:
            values["val/lpips"] = self.perceptual(reconstruction, image).mean()
        self.log_dict(values, batch_size=len(image), sync_dist=True)

    def pictures(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"image": batch["image"], "reconstruction": self.round_trip(batch["image"])[1]}

    def round_trip(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mode of the posterior and its decoded picture (B, 3, H, W) in [-1, 1]."""
        z = self.autoencoder.encode(image).mode()
        return z, self.autoencoder.decode(z).float().clamp(-1, 1)
