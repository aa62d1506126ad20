"""RePaint in latents: with models of nothing, of classes, of prompts and of exemplars."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config import build
from ldm.editors.repaint import RePaint
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.utils.random import NoiseSource
from tests.checkpoints.guided import config
from tests.editors.test_repaint import FAST, fill_hole, hole, picture
from tests.golden_weights import fill
from tests.refusals import refused
from tests.tiny import tiny_model, tiny_text_model


@cache
def unconditional_latent_model(**options):
    other = copy.deepcopy(tiny_text_model())
    unet = fill(build(config(in_channels=4, out_channels=4, **options).model.params.unet))
    return LatentDiffusion(unet, other.autoencoder, None, other.schedule, other.scale_factor, other.image_size)


def latent_model_of_classes():
    return unconditional_latent_model(num_classes=5)


LATENT = {
    "unconditional": (unconditional_latent_model, {}),
    "prompt": (tiny_text_model, {"prompt": "a red ball"}),
    "no prompt": (tiny_text_model, {}),
    "exemplar": (tiny_model, {"exemplar": picture(20, 30, seed=1)}),
    "class": (latent_model_of_classes, {"class_id": 1}),
}


@pytest.mark.parametrize("kind", LATENT)
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_latents_that_are_known_are_exact(kind, sampler):
    model, told = LATENT[kind]
    editor = RePaint(model(), **FAST, sampler=sampler)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 5:17, 8:20] = 1
    z = editor.sample(image, mask, [editor.condition(**told)], NoiseSource([0, 1]), editor.settings)
    cells = editor.to_cells(mask)
    assert cells[0, 0, 1, 2] == 1 and cells[0, 0, 0, 2] == 0  # a cell of which a row is in the hole is filled
    kept = (cells == 0).expand_as(z)
    assert torch.equal(z[kept], editor.encode(image).expand_as(z)[kept])
    assert not torch.equal(z[:1], z[1:])


@pytest.mark.parametrize("kind", LATENT)
def test_pictures_by_latents(kind):
    model, told = LATENT[kind]
    result = fill_hole(model(), size=(40, 32), told=told)
    known = np.array(hole(40, 32)) == 0
    assert np.array_equal(np.array(result.images[0])[known], np.array(picture(40, 32))[known])


def test_what_is_told_changes_what_is_painted():
    exemplar = picture(20, 30, seed=2)
    others = [("prompt", {"prompt": "a blue mug"}), ("exemplar", {"exemplar": exemplar}), ("class", {"class_id": 4})]
    for kind, other in others:
        model, told = LATENT[kind]
        assert fill_hole(model(), told=told).images[0].tobytes() != fill_hole(model(), told=other).images[0].tobytes()


def test_a_mask_finer_than_the_latents_is_refused():
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[::2] = 255
    with refused("mask", 4):
        RePaint(tiny_text_model(), **FAST)(picture(32, 32), Image.fromarray(mask))


def test_a_class_of_latents_is_asked_for():
    with refused("class_id", 0, 4):
        fill_hole(latent_model_of_classes())
    with refused("class_id", 1):
        fill_hole(unconditional_latent_model(), told={"class_id": 1})


def without(model, **changed):
    """A model like another but for some of its networks."""
    other = copy.copy(model)
    other._modules = model._modules | changed
    return other


MISFITS = {
    "nine channels, nothing to tell": (
        lambda: without(tiny_model(), conditioner=None),
        ("UNet", 9, 4),
    ),
    "nine channels, prompts": (
        lambda: without(tiny_text_model(), unet=tiny_model().unet),
        ("UNet", 9, 4, "text-to-image"),
    ),
    "four channels, exemplars": (
        lambda: without(tiny_model(), unet=tiny_text_model().unet),
        ("UNet", 4, 9),
    ),
    "context from nobody": (
        lambda: without(tiny_text_model(), conditioner=None),
        ("UNet", "conditioner"),
    ),
    "another conditioner": (
        lambda: without(tiny_text_model(), conditioner=torch.nn.Linear(1, 1)),
        ("Linear",),
    ),
    "classes beside prompts": (
        lambda: without(tiny_text_model(), unet=latent_model_of_classes().unet),
        ("UNet", 5),
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_latent_models_whose_parts_do_not_fit_are_refused(case):
    model, wanted = MISFITS[case]
    with refused("RePaint", wanted):
        RePaint(model(), **FAST)
