import numpy as np
import pytest
import torch
from PIL import Image

from ldm.editors import compose
from ldm.presets import EditSettings
from ldm.utils.image import to_tensor
from tests.utils.pictures import photo


def hole(height, width, *boxes):
    """(1, 1, H, W) mask with boxes (top, left, bottom, right) to repaint."""
    mask = torch.zeros(1, 1, height, width)
    for top, left, bottom, right in boxes:
        mask[..., top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (64, 65), (31, 64)])
def test_padding_mirrors_and_unpads_to_the_same(size):
    x = torch.rand(1, 3, *size)
    view = compose.whole(x)
    padded = view.to_model(x, 64)
    assert [n % 64 for n in padded.shape[-2:]] == [0, 0]
    assert all(0 <= wide - n < 64 for wide, n in zip(padded.shape[-2:], size, strict=True))
    assert torch.equal(view.from_model(padded), x)


def test_padding_is_numpys_reflection():
    x = torch.rand(1, 2, 5, 7)
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), (0, 11), (0, 9)], mode="reflect")
    assert np.array_equal(compose.pad_to_multiple(x, 16).numpy(), expected)


@pytest.mark.parametrize("box", [(10, 10, 14, 20), (0, 0, 3, 3), (90, 150, 100, 160), (0, 60, 100, 70), (5, 0, 9, 160)])
def test_the_window_holds_the_mask_its_margin_and_stays_inside(box):
    mask = hole(100, 160, box)
    view = compose.around_mask(mask, image_size=64, margin=8)
    assert view.top >= 0 and view.left >= 0 and view.top + view.height <= 100 and view.left + view.width <= 160
    assert max(view.size) == 64
    assert view.top <= max(box[0] - 8, 0) and view.left <= max(box[1] - 8, 0)
    assert view.top + view.height >= min(box[2] + 8, 100) and view.left + view.width >= min(box[3] + 8, 160)
    assert view.cut(mask).sum() == mask.sum()


def test_a_small_mask_becomes_a_large_one():
    mask = hole(500, 700, (200, 300, 220, 320))
    view = compose.around_mask(mask, image_size=64, margin=4)
    assert (view.height, view.width, view.size) == (40, 40, (64, 64))
    assert view.mask_to_model(view.cut(mask), 8).mean() > 0.2  # of the whole picture it was 0.1 percent


def test_a_shrunk_mask_covers_all_of_the_hole():
    mask = hole(512, 512, (100, 100, 101, 400))
    view = compose.around_mask(mask, image_size=64, margin=4)
    shrunk = view.mask_to_model(view.cut(mask), 8)
    assert set(shrunk.unique().tolist()) == {0, 1}
    assert shrunk.sum() >= 32


def test_windows_of_pictures_and_of_tensors_agree():
    picture = photo(160, 100)
    view = compose.around_mask(hole(100, 160, (30, 90, 50, 110)), image_size=64, margin=4)
    assert torch.equal(view.cut(to_tensor(picture)), to_tensor(view.crop(picture)))


@pytest.mark.parametrize("limit", [1, 5])
def test_distance_is_euclidean(limit):
    mask = hole(20, 30, (3, 4, 6, 9), (15, 25, 16, 26))
    points = mask[0, 0].nonzero().double()
    grid = torch.cartesian_prod(torch.arange(20), torch.arange(30)).double()
    exact = torch.cdist(grid, points).amin(1).view(20, 30)
    found = compose.distance(mask, limit)[0, 0].double()
    assert torch.allclose(found[exact <= limit], exact[exact <= limit], atol=1e-6)
    assert (found[exact > limit] > limit).all()


def test_no_limit_costs_more_than_the_picture():
    """A limit wider than the picture: the work, and the padding in memory, end with it."""
    mask = hole(20, 30, (0, 0, 1, 1))
    assert torch.equal(compose.distance(mask, 10**9), compose.distance(mask, 30))
    assert compose.distance(mask, 10**9)[0, 0, -1, -1] == torch.tensor(19.0**2 + 29**2).sqrt()


@pytest.mark.parametrize("feather", [0, 1, 6])
def test_weights_are_one_on_the_mask_and_nothing_beyond_the_feather(feather):
    far = compose.distance(hole(30, 30, (10, 10, 20, 20)), 10)
    weights = compose.feather_weights(far, feather)
    assert (weights[far == 0] == 1).all()
    assert (weights[(far > 0) & (far >= feather)] == 0).all()
    assert ((weights > 0) & (weights < 1)).any() == (feather > 1)


def shifted_edit():
    """A scene, its mask, and an edit that repainted the hole and shifted all colours, differently per channel."""
    scene = to_tensor(photo(64, 64))
    mask = hole(64, 64, (20, 20, 44, 44))
    repainted = torch.where(mask > 0, to_tensor(photo(64, 64, seed=1)), scene)
    gain, offset = torch.tensor([0.9, 1.1, 1.0]), torch.tensor([0.08, -0.05, 0.1])
    return scene, mask, repainted, repainted * gain[:, None, None] + offset[:, None, None]


def test_colour_is_matched_on_the_ring():
    scene, mask, repainted, shifted = shifted_edit()
    far = compose.distance(mask, 8)
    ring = (far > 0) & (far <= 8)
    matched = compose.match_colour(shifted, scene, ring)
    before = (shifted - scene)[..., ring[0, 0]].abs().mean()
    assert (matched - scene)[..., ring[0, 0]].abs().mean() < 0.01 * before
    assert torch.allclose(matched, repainted, atol=1e-3)  # in the hole as well, which was not looked at


def test_blur_is_not_taken_for_a_lack_of_contrast():
    scene = to_tensor(Image.effect_noise((64, 64), 80).convert("RGB"))
    blurred = torch.nn.functional.avg_pool2d(scene, 3, stride=1, padding=1, count_include_pad=False)
    matched = compose.match_colour(blurred, scene, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    assert 0.9 < matched.std() / blurred.std() < 1.1
    assert scene.std() / blurred.std() > 2


def test_without_a_ring_colours_stay():
    scene, _, _, shifted = shifted_edit()
    nowhere = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    assert torch.equal(compose.match_colour(shifted, scene, nowhere), shifted)


def test_a_flat_ring_gives_a_shift_alone():
    ring = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    matched = compose.match_colour(torch.full((1, 3, 16, 16), 0.3), torch.full((1, 3, 16, 16), 0.1), ring)
    assert torch.allclose(matched, torch.tensor(0.1))


@pytest.mark.parametrize("composite, feather", [("feather", 5), ("feather", 0), ("paste", 5)])
@pytest.mark.parametrize("rounding", ["round", "truncate"])
def test_beyond_the_feather_the_scene_is_untouched_and_inside_it_is_new(composite, feather, rounding):
    scene, mask, _, _ = shifted_edit()
    edited = -scene
    settings = EditSettings.read(composite=composite, feather=feather, rounding=rounding, match_colour=False)
    (picture,) = compose.composite_into(edited, photo(64, 64), mask, compose.whole(scene), settings)
    changed = (np.asarray(picture) != np.asarray(photo(64, 64))).any(-1)
    far = compose.distance(mask, 6)[0, 0].numpy()
    assert not changed[far > (feather if composite == "feather" else 0)].any()
    inside = far == 0
    expected = 255 - np.asarray(photo(64, 64))[inside].astype(int)
    assert np.abs(np.asarray(picture)[inside] - expected).max() <= (rounding == "truncate")
    assert changed[(far > 0) & (far < feather)].any() == (composite == "feather" and feather > 1)


def test_alpha_is_carried_through():
    picture = photo(64, 64)
    picture.putalpha(Image.linear_gradient("L").resize((64, 64)))
    scene, mask, _, _ = shifted_edit()
    (result,) = compose.composite_into(-scene, picture, mask, compose.whole(scene), EditSettings.read())
    assert result.mode == "RGBA"
    assert result.getchannel("A").tobytes() == picture.getchannel("A").tobytes()


def test_a_changed_background_is_noticed():
    mask = hole(32, 48, (8, 8, 16, 16))
    spoilt = photo()
    spoilt.putpixel((40, 30), (1, 2, 3))
    compose.check_background([photo()], photo(), mask, 4)
    with pytest.raises(AssertionError, match="mask"):
        compose.check_background([photo(), spoilt], photo(), mask, 4)
