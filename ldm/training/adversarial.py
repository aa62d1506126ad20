"""A discriminator that is trained against an autoencoder (Esser et al., 2012.09841, section 3.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Adversarial(nn.Module):
    """The losses of both networks, for one optimizer that updates both in the same step.

    Neither loss has a gradient for the other network's weights, so their sum trains each on its own. LDM alternates
    instead: its discriminator sees the autoencoder after the autoencoder's step.

    Args:
        discriminator: pictures to logits, high for real ones.
        start: optimizer step at which it joins; before that, it is not trained either.
        weight: weight of the generator's loss, on top of the adaptive weight.
        max_weight: upper bound of the adaptive weight. LDM's 1e4 is for losses summed over a picture; for means over
            its n values the same bound is 1e4 / n.
    """

    def __init__(self, discriminator: nn.Module, start: int, weight: float = 0.5, max_weight: float = 1e4):
        super().__init__()
        self.discriminator = discriminator
        self.start, self.weight, self.max_weight = start, weight, max_weight

    def forward(
        self, step: int, image: Tensor, reconstruction: Tensor, nll: Tensor, last_layer: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the term to add to the autoencoder's loss, and its parts for logging.

        Batch norm statistics and the adaptive weight are those of the pictures that one device holds at once.

        Args:
            image, reconstruction: (B, 3, H, W) in [-1, 1].
            nll: reconstruction loss, a scalar.
            last_layer: weight of the decoder's last convolution.
        """
        if step < self.start:  # zero gradients: data-parallel training expects one for every weight in every step
            return 0 * sum(parameter.sum() for parameter in self.discriminator.parameters()), {}
        generator = -self.judged_by_a_copy(reconstruction).mean()
        weight = adaptive_weight(nll, generator, last_layer).clamp(max=self.max_weight)
        discriminator = hinge_loss(self.discriminator(image), self.discriminator(reconstruction.detach()))
        parts = {"generator": generator, "discriminator": discriminator, "adaptive_weight": weight}
        return self.weight * weight * generator + discriminator, parts

    def judged_by_a_copy(self, x: Tensor) -> Tensor:
        """Return the logits, with gradients for x alone; the running statistics of norms are unchanged."""
        state = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        state |= {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        return functional_call(self.discriminator, state, (x,))

    def before_optimizer_step(self, step: int) -> None:
        """Exclude a discriminator that has not started from the optimizer: no weight decay, no moments of zeros."""
        if step < self.start:
            for parameter in self.discriminator.parameters():
                parameter.grad = None


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss: max(0, 1 - real) and max(0, 1 + fake), averaged over both (1705.02894)."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def adaptive_weight(nll: Tensor, generator: Tensor, last_layer: Tensor) -> Tensor:
    """Return |d nll / d last_layer| / (|d generator / d last_layer| + 1e-4), equation 7, without a gradient."""
    nll_gradient, generator_gradient = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (nll, generator)
    )
    return nll_gradient.norm() / (generator_gradient.norm() + 1e-4)
