import copy

import numpy as np
import pytest
import torch

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.schedule import Schedule
from ldm.editors import compose, mask_inference
from ldm.editors.diffedit import DiffEdit
from ldm.editors.mask_inference import EmptyMask, difference_map, infer_map, scale_map
from ldm.presets import MaskInference
from ldm.utils.random import NoiseSource, key_seed
from tests.editors.analytic import CELL, CHANNELS, analytic_model, numpy_map
from tests.refusals import refused
from tests.tiny import tiny_text_model
from tests.utils.pictures import photo

SCHEDULE = Schedule.scaled_linear()


def pictures(batch=1, height=16, width=24, seed=0):
    return 2 * torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) - 1


def noises(n, seed, shape):
    return NoiseSource(key_seed(seed, "map", j) for j in range(n)).randn(*shape)


@pytest.mark.parametrize("strength, t", [(1e-6, 0), (0.25, 249), (0.5, 499), (1.0, 999)])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_against_an_implementation_of_its_own(strength, t, prediction):
    model, image = analytic_model(prediction), pictures()
    found = DiffEdit(model).infer_mask(image, ["right 0.3"], ["left 1.5"], n_maps=3, strength=strength, seed=5)
    z = model.encode(image, None)[0].double().numpy()
    drawn = noises(3, 5, z.shape).double().numpy()
    expected = numpy_map(z, (2.0, 0.3), (1.0, 1.5), drawn, t, clamp=3.0)
    tolerance = 1e-5 if t else 2e-3  # at t = 0 eps is a small difference of large numbers in float32
    np.testing.assert_allclose(found.map[0, 0], expected, atol=tolerance)
    assert set(model.unet.times) == {t}
    clear = np.abs(expected - 0.5) > tolerance
    assert np.array_equal(found.latent[0, 0].numpy()[clear], (expected > 0.5)[clear])
    assert torch.equal(found.mask, found.latent.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3))


def test_float64_to_rounding():
    model, z = analytic_model(), torch.randn(1, CHANNELS, 4, 6, dtype=torch.float64)
    drawn = torch.randn(4, CHANNELS, 4, 6, dtype=torch.float64)
    contexts = model.conditioner(["", "left 1.5"]).double()
    difference = difference_map(model.unet, z, contexts[:1], contexts[1:], 499, SCHEDULE, drawn[:, None])
    expected = numpy_map(z[0].numpy(), (0, 0), (1.0, 1.5), drawn.numpy(), 499, 2.0)
    np.testing.assert_allclose(scale_map(difference, 2.0)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("cells", [1, 300, 10**9])
def test_neither_the_batch_nor_what_the_network_sees_at_once_matters(monkeypatch, cells):
    editor, image = DiffEdit(tiny_text_model()), pictures(3, 16, 16)
    targets = ["a red ball", "a mug", "a blue ball and a mug"]
    monkeypatch.setattr(mask_inference, "CELLS", cells)
    batch = editor.infer_mask(image, ["", "a mug", "a ball"], targets, n_maps=5, seed=3).map
    monkeypatch.undo()
    for k, source in enumerate(["", "a mug", "a ball"]):
        single = editor.infer_mask(image[k : k + 1], [source], targets[k : k + 1], n_maps=5, seed=3).map
        torch.testing.assert_close(batch[k : k + 1], single, rtol=0, atol=2e-5)
    many = editor.infer_mask(image[:1], [""], targets, n_maps=5, seed=3).map
    torch.testing.assert_close(many[:1], batch[:1], rtol=0, atol=2e-5)


def test_each_map_has_noise_of_its_own_and_the_average_settles():
    model = analytic_model()
    z, contexts = model.encode(pictures(), None), model.conditioner(["", "left 1.5"])

    def difference(n, seed):
        drawn = noises(n, seed, z.shape[1:])
        return difference_map(model.unet, z, contexts[:1], contexts[1:], 499, SCHEDULE, drawn[:, None])

    singles = torch.stack([difference(1, seed) for seed in range(12)])
    averages = torch.stack([difference(16, seed) for seed in range(12)])
    assert 8 < singles.var(0).mean() / averages.var(0).mean() < 32  # 16, but for chance
    drawn = noises(3, 0, (4,))
    assert len({tuple(row.tolist()) for row in drawn}) == 3
    assert torch.equal(noises(2, 0, (4,)), drawn[:2])
    assert not torch.equal(noises(2, 1, (4,)), drawn[:2])


def test_pictures_of_a_batch_can_have_seeds_of_their_own():
    editor, image = DiffEdit(tiny_text_model()), pictures(3, 16, 16)
    sources, targets, seeds = ["", "a mug", "a ball"], ["a red ball", "a mug", "a blue ball"], [7, 3, 7]
    batch = editor.infer_mask(image, sources, targets, n_maps=4, seeds=seeds).map
    for k, seed in enumerate(seeds):
        one = slice(k, k + 1)
        single = editor.infer_mask(image[one], sources[one], targets[one], n_maps=4, seed=seed).map
        torch.testing.assert_close(batch[one], single, rtol=0, atol=2e-5)
    assert (batch[:1] - editor.infer_mask(image[:1], [""], targets[:1], n_maps=4, seed=3).map).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("targets", [1, 2, 3])
def test_the_same_prompt_makes_no_difference(dtype, targets):
    """In bfloat16 too, and beside any number of targets: contexts must not depend on how many are made at once."""
    model = copy.deepcopy(tiny_text_model()).to(dtype)
    prompt = "a red ball and a mug"
    found = DiffEdit(model).infer_mask(pictures(1, 16, 16), [prompt], [prompt] * targets, n_maps=3)
    assert not found.map.any() and not found.mask.any()


def test_what_is_scaled():
    difference = torch.tensor([[1.0, 2.0, 3.0, 30.0], [4.0, 4.0, 4.0, 4.0], [0, 0, 0, 0]]).view(3, 1, 2, 2)
    scaled = scale_map(difference, 2.0).flatten(1)
    torch.testing.assert_close(scaled[0], torch.tensor([0.0, 1.0, 2.0, 17.0]) / 17)  # cut at 2 x 9, each map alone
    assert scaled[1].tolist() == [1, 1, 1, 1] and scaled[2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size, empty", [(1e-6, True), (9e-5, True), (2e-4, False)])
def test_rounding_is_no_difference(size, empty):
    difference = torch.tensor([0.0, 0.0, 0.0, 1.0]).view(1, 1, 2, 2) * size
    assert scale_map(difference, 4.0).any().item() is not empty


def test_outside_does_not_count():
    """The map of a part is that of the part alone."""
    difference = torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    inside = torch.zeros(1, 1, 6, 8)
    inside[..., 1:4, 2:7] = 1
    expected = torch.zeros_like(difference)
    expected[..., 1:4, 2:7] = scale_map(difference[..., 1:4, 2:7], 1.2)
    torch.testing.assert_close(scale_map(difference, 1.2, inside), expected)


@pytest.mark.parametrize("size", [(24, 16), (23, 15), (17, 13), (5, 16)])
def test_padding_has_no_part_in_the_map(monkeypatch, size):
    """What is told of a picture of any size follows from its own cells."""
    seen = []
    scale = mask_inference.scale_map
    monkeypatch.setattr(mask_inference, "scale_map", lambda *args: seen.append(args) or scale(*args))
    editor = DiffEdit(analytic_model(), steps=1, n_maps=2, clamp=1.0)  # the mean decides
    result = editor(photo(*size), "left 0.4", "right 0.3")
    difference, clamp, _ = seen[0]
    width, height = size
    own = difference[..., : -(-height // CELL), : -(-width // CELL)]
    enlarged = scale(own, clamp).repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
    torch.testing.assert_close(result.maps[0], enlarged[0, 0, :height, :width])
    assert np.array_equal(np.asarray(result.masks[0]) == 255, result.maps[0].numpy() > 0.5)


def test_inside_is_the_picture_without_its_padding():
    view = compose.View(0, 0, 13, 17, (13, 17))
    inside = view.inside(8)
    assert inside.shape == view.to_model(torch.zeros(1, 3, 13, 17), 8)[:, :1].shape
    assert inside.sum() == inside[..., :13, :17].sum() == 13 * 17


def test_nothing_found_tells_of_its_maps():
    with refused("a mug", error=EmptyMask) as caught:
        DiffEdit(tiny_text_model(), steps=1, n_maps=1)(photo(19, 14), "a mug", "a mug")
    assert [tuple(m.shape) for m in caught.value.maps] == [(14, 19)] and not caught.value.maps[0].any()


def test_evaluations_are_told_of():
    told, model = [], analytic_model()
    z, contexts = model.encode(pictures(), None), model.conditioner(["", "left 1", "right 1"])
    denoise, inference = Denoiser(model.unet, SCHEDULE), MaskInference(3, 0.5, 0.5, 3.0, 0)
    infer_map(denoise, z, contexts[:1], contexts[1:2], inference, callback=told.append)
    assert sum(told) == model.unet.rows == 6
    model.unet.rows = 0
    infer_map(denoise, z, contexts[:1], contexts[1:], inference)
    assert model.unet.rows == 9  # the source is looked at once for both targets
