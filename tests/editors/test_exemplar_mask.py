"""The mask that an edit by example finds in a box."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.editors import mask_inference
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.exemplars import exemplar_pixels, fit_exemplar
from ldm.editors.mask_inference import EmptyMask
from ldm.presets import DiffEditSettings
from ldm.utils.image import to_tensor
from ldm.utils.mask import box_mask
from ldm.utils.random import NoiseSource, key_seed
from tests.refusals import refused
from tests.tiny import tiny_model
from tests.utils.pictures import photo

BOX = (9, 4, 30, 23)  # pixels; the autoencoder's cells are 4 pixels wide
INFERENCE = DiffEditSettings.read(n_maps=3)


class Field:
    """A network whose answer is the mean of its context times a field (h, w), the same in every channel."""

    def __init__(self, field):
        self.field, self.seen = field, []

    def __call__(self, channels, t, context):
        self.seen.append((channels, t, context))
        return context.mean((1, 2))[:, None, None, None] * self.field.expand(len(channels), 4, *self.field.shape)


@pytest.fixture
def stub(monkeypatch):
    """tiny_model with `Field` in the place of the UNet's mathematics: `stub(field)` makes it and returns its calls."""

    def install(field):
        network = Field(field)
        monkeypatch.setattr(tiny_model().unet, "forward", network)
        return network.seen

    return install


def infer(picture=None, box=BOX, reference=None, inference=INFERENCE, **changes):
    reference = reference or photo(40, 30, seed=7)
    return ExemplarEditor(tiny_model()).infer_mask(picture or photo(), box, reference, inference, **changes)


def pixels(*pictures):
    return torch.cat([exemplar_pixels(fit_exemplar(picture, 32, "stretch")) for picture in pictures])


def contexts(*pictures):
    return tiny_model().conditioner(pixels(*pictures))


def batch(n=3):
    pictures = [photo(seed=seed) for seed in range(n)]
    boxes = [(9 + i, 4, 30 + 4 * i, 23) for i in range(n)]
    return (
        torch.cat([to_tensor(picture) for picture in pictures]),
        torch.cat([box_mask(box, (48, 32)) for box in boxes]),
        contexts(*(picture.crop(box) for picture, box in zip(pictures, boxes, strict=True))),
        contexts(*(photo(40, 30, seed=7 + i) for i in range(n))),
    )


def compare(parts, inference=INFERENCE):
    return ExemplarEditor(tiny_model()).compare(*parts, inference)


def test_the_map_of_a_known_difference(stub):
    """Against a computation of its own in float64: statistics and map are those of the box's cells alone."""
    rng = np.random.default_rng(0)
    field = rng.uniform(0.5, 1, (8, 12))
    field[2, 4] = 30  # an outlier, cut at 2 times the mean
    field[7, 11] = 1e4  # outside the box: it counts for nothing
    stub(torch.from_numpy(field).float())
    found = infer(inference=replace(INFERENCE, clamp=2.0, threshold=0.4))

    inside = field[1:6, 2:8]  # the cells that the box touches
    cut = np.minimum(inside, 2 * inside.mean())
    expected = np.zeros((32, 48))
    scaled = (cut - cut.min()) / (cut.max() - cut.min())
    expected[4:24, 8:32] = np.kron(scaled, np.ones((4, 4)))
    outside = np.ones((32, 48), bool)
    outside[4:23, 9:30] = False
    expected[outside] = 0
    assert np.abs(found.map[0, 0].double().numpy() - expected).max() < 1e-6
    assert np.array_equal(found.mask[0, 0].numpy(), expected > 0.4)
    assert 0 < found.mask.mean() < (expected > 0).mean()


def test_padding_does_not_count(stub):
    """A picture of 44 pixels is mirrored to 48, and with it a box at its edge; the model may see anything there."""
    maps = []
    for beyond in (0, 100):
        field = torch.linspace(0.5, 1, 8 * 12).view(8, 12)
        field[:, 11:] = beyond
        stub(field)
        maps.append(infer(photo(44, 32), (20, 4, 44, 23)).map)
    assert torch.equal(*maps) and maps[0].max() == 1


def test_what_the_model_is_shown(stub):
    """The noised scene, the scene with the box blanked, the box as the mask; the box's crop and the exemplar."""
    seen, model = stub(torch.ones(8, 12)), tiny_model()
    picture, reference = photo(), photo(40, 30, seed=7)
    infer(picture, reference=reference, inference=replace(INFERENCE, strength=0.3, seed=5))
    channels, t, context = (torch.cat(parts) for parts in zip(*seen, strict=True))
    with torch.no_grad():
        z = model.encode(to_tensor(picture), None)
        noises = [NoiseSource([key_seed(5, "map", j)]).randn(4, 8, 12) for j in range(3)]
        masked = NoiseSource([key_seed(5, "masked")]).randn(4, 8, 12)
        concat = model.inpainting_channels(to_tensor(picture), box_mask(BOX, (48, 32)), masked)
        contexts = model.conditioner(pixels(picture.crop(BOX), reference))
    a = model.schedule.alphas_cumprod[299].item()
    x = torch.cat([a**0.5 * z + (1 - a) ** 0.5 * noise for noise in noises]).repeat_interleave(2, 0)
    assert set(t.tolist()) == {299}
    torch.testing.assert_close(channels[:, :4], x, rtol=0, atol=1e-5)
    torch.testing.assert_close(channels[:, 4:], concat.expand(6, -1, -1, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(context, contexts.repeat(3, 1, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cells", [1, 3 * 8 * 12, 10**6])
def test_two_evaluations_a_map_however_many_at_once(stub, monkeypatch, cells):
    monkeypatch.setattr(mask_inference, "CELLS", cells)
    seen, told = stub(torch.ones(8, 12)), []
    infer(inference=replace(INFERENCE, n_maps=5), callback=told.append)
    assert sum(len(channels) for channels, *_ in seen) == 10
    assert sum(told) == 10


def test_a_mask_does_not_depend_on_its_batch(monkeypatch):
    parts = batch()
    together = compare(parts)
    monkeypatch.setattr(mask_inference, "CELLS", 1)
    for i in range(3):
        alone = compare([part[i : i + 1] for part in parts])
        torch.testing.assert_close(alone.map, together.map[i : i + 1], rtol=0, atol=1e-4)
    assert (together.map[0] - together.map[1]).abs().max() > 0.1


def test_the_seed_of_the_inference_decides_and_that_of_the_edit_does_not():
    one, again, other = infer(), infer(seed=3), infer(inference=replace(INFERENCE, seed=1))
    assert torch.equal(one.map, again.map) and torch.equal(one.mask, again.mask)
    assert (one.map - other.map).abs().max() > 1e-3


def test_scene_exemplar_box_and_fit_all_matter():
    base = infer().map
    others = [
        infer(photo(seed=3)),
        infer(reference=photo(40, 30, seed=8)),
        infer(box=(9, 4, 31, 23)),
        infer(exemplar_fit="crop"),
        infer(inference=replace(INFERENCE, strength=0.8)),
    ]
    assert all((other.map - base).abs().max() > 1e-3 for other in others)


@pytest.mark.parametrize("size", [(48, 32), (97, 131), (47, 31), (300, 20)])
@pytest.mark.parametrize("crop", ["none", "auto"])
def test_any_size_and_nothing_outside_the_box(size, crop):
    box = (size[0] // 3, size[1] // 4, size[0] // 2, size[1])
    found, inside = infer(photo(*size), box, crop=crop), box_mask(box, size)
    assert found.map.shape == found.mask.shape == inside.shape
    assert not (found.map * (1 - inside)).any()
    assert found.mask.unique().tolist() in ([0, 1], [1])
    assert 0 < found.mask.sum() <= inside.sum()
    assert torch.equal(found.mask, (found.map > 0.5).float())


def test_a_map_is_laid_where_its_window_was_cut(stub):
    """Under `crop: auto` a cell of the model is less than one of the scene; the difference is in the box's middle."""
    field = torch.zeros(16, 16)
    field[7:9, 7:9] = 1
    stub(field)
    found = infer(photo(200, 120), (100, 60, 110, 70), crop="auto")  # 20 pixels around it, seen at 64: cells of 1.25
    rows, columns = (found.mask[0, 0].amax(dim).nonzero()[:, 0] for dim in (1, 0))
    assert (rows.tolist(), columns.tolist()) == ([63, 64, 65, 66], [103, 104, 105, 106])  # whatever it touches
    assert found.mask.sum() == 16


def test_a_box_that_shows_the_exemplar_already_has_no_mask():
    picture = photo()
    with refused("9,4,30,23", error=EmptyMask) as error:
        infer(picture, reference=picture.crop(BOX))
    (map,) = error.value.maps
    assert map.shape == (32, 48) and map.max() < 0.5
    assert error.value.exit_code == 3


def test_a_transparent_scene():
    picture = photo()
    picture.putalpha(128)
    assert infer(picture).mask.any()


@pytest.mark.parametrize(
    "box, wanted",
    [
        ((9, 4, 9, 23), "9,4,9,23"),
        ((9, 24, 30, 23), "9,24,30,23"),
        ((-1, 4, 30, 23), ("-1,4,30,23", "48x32")),
        ((9, 4, 49, 23), ("9,4,49,23", "48x32")),
        ((9, 4, 30, 33), ("9,4,30,33", "48x32")),
    ],
)
def test_wrong_boxes_are_named(box, wanted):
    with refused("box", wanted):
        infer(box=box)
