"""A text-to-image model whose best eps is known: two Gaussians at every place, one of them where the prompt says.

Prompts name a place and a value, as "left 1.5": there the data is about that value, elsewhere about 0. `numpy_*` are
DiffEdit's steps on it in float64, from the paper: they share no code with the package.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from ldm.diffusion.schedule import Schedule
from ldm.models.clip_text import TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion

CELL, CHANNELS = 2, 12  # a latent is its picture, with the pixels of each cell as channels
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
PLACES = {"left": 1.0, "right": 2.0}
STD = 0.4


class Prompts(TextConditioner):
    """ "left 1.5" -> (1, 2): place and value; "" is nowhere."""

    def __init__(self):
        nn.Module.__init__(self)
        self.encoder = SimpleNamespace(tokenizer=lambda prompts: None)  # reads everything

    def forward(self, prompts) -> Tensor:
        rows = [prompt.split() or ["", 0.0] for prompt in prompts]
        return torch.tensor([[[PLACES.get(place, 0.0), float(value)]] for place, value in rows])


class Shuffle(nn.Module):
    """A lossless autoencoder."""

    downsampling, latent_channels = CELL, CHANNELS

    def encode(self, image):
        return Posterior(image)

    def decode(self, z):
        return nn.functional.pixel_shuffle(z, CELL)


class Posterior:
    def __init__(self, image):
        self.image = image

    def mode(self):
        return nn.functional.pixel_unshuffle(self.image, CELL)


class Mixture(nn.Module):
    """Counts the rows it is asked for."""

    in_channels, downsampling = CHANNELS, 2

    def __init__(self, prediction: str = "eps"):
        super().__init__()
        self.prediction = prediction
        self.weight = nn.Parameter(torch.zeros(1))
        self.rows, self.times = 0, []

    def forward(self, x, t, context):
        self.rows += len(x)
        self.times.append(int(t[0]))
        out = np.stack([self.row(*row) for row in zip(x.double().numpy(), t.tolist(), context.tolist(), strict=True)])
        return torch.from_numpy(out).to(x.dtype)

    def row(self, x, t, context):
        eps, a = numpy_eps(x, t, context[0]), ALPHAS[t]
        return eps if self.prediction == "eps" else (eps - (1 - a) ** 0.5 * x) / a**0.5


def analytic_model(prediction: str = "eps") -> LatentDiffusion:
    """Its pictures' sides are multiples of 4."""
    return LatentDiffusion(
        Mixture(prediction), Shuffle(), Prompts(), Schedule.scaled_linear(), 1.0, image_size=16, prediction=prediction
    )


def numpy_eps(x, t, prompt):
    """E[eps | x_t], x (c, h, w)."""
    place, value = prompt
    a, middle = ALPHAS[t], x.shape[2] // 2
    mean = np.zeros_like(x)
    if place:
        mean[:, :, slice(0, middle) if place == 1 else slice(middle, None)] = value
    variance = a * STD**2 + 1 - a
    d = [x - a**0.5 * m for m in (mean, -0.8)]
    w = [np.exp(-(e**2) / (2 * variance)) for e in d]
    return (1 - a) ** 0.5 / variance * (w[0] * d[0] + w[1] * d[1]) / (w[0] + w[1])


def numpy_map(z, reference, query, noises, t, clamp):
    """(h, w) in [0, 1]."""
    a, total = ALPHAS[t], 0
    for noise in noises:
        x = a**0.5 * z + (1 - a) ** 0.5 * noise
        total = total + np.abs(numpy_eps(x, t, reference) - numpy_eps(x, t, query)).mean(0)
    average = total / len(noises)
    cut = np.minimum(average, clamp * average.mean())
    return (cut - cut.min()) / (cut.max() - cut.min())


def numpy_inversion(z, timesteps):
    """The latent at each level, from t = 0 up, without a prompt."""
    record, x, before = {0: z}, z, 0
    for t in sorted(timesteps):
        x = numpy_step(x, numpy_eps(x, t, (0, 0)), before, t)
        record[t] = x
        before = t
    return record


def numpy_decode(record, mask, query, negative, scale):
    """What is left after each step down, by the timestep whose level it has."""
    times = sorted(record, reverse=True)
    x, seen = record[times[0]], {}
    for t, after in zip(times, times[1:], strict=False):
        away = numpy_eps(x, t, negative)
        eps = away + scale * (numpy_eps(x, t, query) - away)
        x = numpy_step(x, eps, t, after)
        seen[after] = x = np.where(mask, x, record[after])
    return seen


def numpy_step(x, eps, t, after):
    a, b = ALPHAS[t], ALPHAS[after]
    return b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
