"""The model of pictures that ships, by what it can do in a few seconds."""

import pytest
import torch

import ldm
from ldm.config import load_config
from ldm.editors.repaint import RePaint
from ldm.evaluation.metrics import psnr
from ldm.toyworld.scenes import HoleScenes, collate
from ldm.utils.random import NoiseSource


@pytest.fixture(scope="module")
def prior():
    return ldm.load("toyworld_prior")


def test_it_is_small_and_what_its_training_makes(prior):
    assert sum(p.numel() for p in prior.parameters()) <= 3_000_000
    assert load_config("train/toyworld_prior").model == load_config("toyworld_prior").model


def test_it_knows_noise_in_scenes_it_has_not_seen(prior):
    scenes = collate([HoleScenes(5000, 8, "half")[i] for i in range(8)])["image"]
    noise = NoiseSource(range(8)).randn(3, 64, 64)
    for t, most in ((50, 0.16), (250, 0.05), (500, 0.02)):
        a = prior.schedule.alphas_cumprod[t].item()
        with torch.no_grad():
            said = prior.unet(a**0.5 * scenes + (1 - a) ** 0.5 * noise, torch.full((8,), t))
        assert (said[:, :3] - noise).square().mean() < most


def test_it_fills_narrow_holes_better_than_with_their_mean_colour(prior):
    data = HoleScenes(5000, 4, "narrow")
    batch = collate([data[i] for i in range(4)])
    scenes, holes = batch["image"], batch["mask"]
    editor = RePaint(prior, "fast", steps=10)
    filled = editor.sample(scenes, holes, [editor.condition()], NoiseSource(range(4)), editor.settings)
    known = (scenes * (1 - holes)).sum((2, 3), keepdim=True) / (1 - holes).sum((2, 3), keepdim=True)
    assert torch.equal(filled.where(holes == 0, scenes), scenes)
    gain = psnr(filled, scenes, where=holes) - psnr(known.expand_as(scenes), scenes, where=holes)
    assert gain.mean() > 6  # dB
