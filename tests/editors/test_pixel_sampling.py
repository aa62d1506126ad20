import numpy as np
import pytest
import torch

import ldm
from ldm.diffusion.schedule import Schedule
from ldm.editors.pixel_sampling import PixelSampler
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.utils.random import NoiseSource
from tests.editors.test_repaint import pixel_classifier, pixel_model
from tests.refusals import refused
from tests.tiny import tiny_text_model

FAST = {"steps": 4, "n_samples": 2}


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_a_picture_does_not_know_of_the_others(sampler):
    together = ldm.PixelSampler(pixel_model(), **FAST, sampler=sampler)(seed=5)
    alone = ldm.PixelSampler(pixel_model(), **FAST, sampler=sampler)(seed=6, n_samples=1)
    assert together.seeds == [5, 6] and together.images[0].size == (16, 16)
    first, second, again = (np.array(image).astype(int) for image in (*together.images, *alone.images))
    assert np.abs(second - again).max() <= 1
    assert not np.array_equal(first, second)


class Oracle(torch.nn.Module):
    """E[eps | x_t] of data N(mean, std^2), pixel by pixel."""

    in_channels = out_channels = 3
    num_classes, downsampling, mean, std = None, 1, 0.2, 0.1

    def __init__(self, schedule):
        super().__init__()
        self.out = torch.nn.ModuleList([torch.nn.Linear(1, 1)])
        self.alphas_cumprod = schedule.alphas_cumprod

    def forward(self, x, t, y=None):
        a = self.alphas_cumprod[t].to(x).view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.std**2 + 1 - a)


@pytest.mark.parametrize("sampler, steps", [("ddpm", 250), ("ddim", 250), ("dpm_solver", 250)])
def test_samples_are_of_the_data(sampler, steps):
    schedule = Schedule.cosine()
    model = PixelDiffusion(Oracle(schedule), schedule, image_size=64, variance="fixed_small")
    editor = PixelSampler(model, sampler=sampler, steps=steps)
    x = editor.sample(None, NoiseSource([1]), editor.settings)
    assert x.mean().item() == pytest.approx(0.2, abs=0.01)
    assert x.std().item() == pytest.approx(0.1, rel=0.06)


class Linear(torch.nn.Module):
    """log p(class | x_t) of three classes: one is almost certain, the others are exp(g x0) for g of 10 and -10 as rare.

    At t that is exp(g E[x0 | x_t]) but for a factor, for x0 given x_t has the same variance everywhere. Among those of
    such a class data N(mean, std^2) is N(mean + g std^2, std^2).
    """

    num_classes, slope = 3, 10.0

    def __init__(self, data: Oracle):
        super().__init__()
        self.data = data

    def forward(self, x, t):
        a = self.data.alphas_cumprod[t].to(x).view(-1, 1, 1, 1)
        weight = a.sqrt() * self.data.std**2 / (a * self.data.std**2 + 1 - a)
        drift = (self.slope * weight * x).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(drift), drift - 1e6, -drift - 1e6], dim=1)


@pytest.mark.parametrize("sampler, tolerance", [("ddpm", 0.025), ("ddim", 0.01)])  # the first moves the means by Euler
@pytest.mark.parametrize("class_id, scale, mean", [(0, 1.0, 0.2), (1, 1.0, 0.3), (2, 1.0, 0.1), (1, 2.0, 0.4)])
def test_a_classifier_pulls_towards_its_class(sampler, tolerance, class_id, scale, mean):
    schedule = Schedule.cosine()
    model = PixelDiffusion(Oracle(schedule), schedule, image_size=32, variance="fixed_small")
    guide = Linear(model.unet)
    editor = PixelSampler(model, classifier=guide, sampler=sampler, steps=250, classifier_scale=scale)
    x = editor.sample(class_id, NoiseSource([1]), editor.settings)
    assert x.mean().item() == pytest.approx(mean, abs=scale * tolerance)
    assert x.std().item() == pytest.approx(0.1, rel=0.1)


def test_a_classifier_without_classes_is_refused():
    with refused("classifier", "num_classes", "Oracle", None):
        PixelSampler(pixel_model(), classifier=Oracle(Schedule.cosine()))


def test_classes_and_classifiers():
    editor = ldm.PixelSampler(pixel_model(num_classes=5), **FAST)
    assert editor(class_id=0).images[0].tobytes() != editor(class_id=1).images[0].tobytes()
    guided = ldm.PixelSampler(pixel_model(), classifier=pixel_classifier(), **FAST, classifier_scale=50.0)
    assert guided(class_id=0).images[0].tobytes() != guided(class_id=1).images[0].tobytes()


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        ({"class_id": 3}, ("class_id", 3)),
        ({"sampler": "plms"}, ("sampler", "plms", "ddpm", "ddim", "dpm_solver")),
        ({"eta": 0.5}, ("eta", 0.5, "ddim", "ddpm")),
        ({"steps": 0}, ("steps", 0)),
    ],
)
def test_wrong_input(wrong, wanted):
    with refused(wanted):
        ldm.PixelSampler(pixel_model(), **FAST)(**wrong)


def test_a_latent_model_is_refused():
    with refused("LatentDiffusion"):
        ldm.PixelSampler(tiny_text_model())
