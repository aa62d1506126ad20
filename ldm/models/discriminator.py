"""The patch discriminator of pix2pix (Isola et al., 1611.07004), with the names of LDM's autoencoder files."""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """A discriminator of real pictures and reconstructions, patch by patch: a logit every 8 pixels, high for real.

    With three layers a logit sees a patch of 70x70 pixels. Parameter names are those below `loss.discriminator.` in a
    checkpoint of LDM's autoencoder. Weights of convolutions start as N(0, 0.02), scales of norms as N(1, 0.02).

    Args:
        ndf: width after the first convolution; each further layer doubles it, up to 8 times.
        n_layers: convolutions with batch norm; all but the last of them halve the side, as the first one does.
        in_channels: of the pictures.
    """

    def __init__(self, ndf: int = 64, n_layers: int = 3, in_channels: int = 3):
        super().__init__()
        layers = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        for n in range(1, n_layers + 1):
            stride = 2 if n < n_layers else 1
            layers.append(nn.Conv2d(widths[n - 1], widths[n], 4, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(widths[n]), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (B, 3, H, W) in [-1, 1] to logits (B, 1, about H/8, about W/8)."""
        return self.main(x)
