import numpy as np
import pytest
import torch
from PIL import Image

from ldm.evaluation.clip_score import RegionCrop, cosine_score, whole
from ldm.utils.clip import CLIP_MEAN, CLIP_STD
from tests.refusals import refused
from tests.utils.pictures import photo


def grain(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture in which every pixel counts."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def normalised(picture: Image.Image) -> np.ndarray:
    """(H, W, 3)"""
    return (np.asarray(picture) / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)


def bilinear(pixels: np.ndarray, side: int) -> np.ndarray:
    """Between the two nearest pixels of each axis, without antialiasing; half-pixel centres, the border repeated."""
    for axis in (0, 1):
        n = pixels.shape[axis]
        at = ((np.arange(side) + 0.5) * n / side - 0.5).clip(0, n - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape(-1, *[1] * (2 - axis))
        pixels = pixels.take(low, axis) * (1 - share) + pixels.take((low + 1).clip(max=n - 1), axis) * share
    return pixels


@pytest.mark.parametrize("box", [(10, 20, 60, 45), (0, 0, 400, 300), (3, 3, 5, 5)])
def test_the_original_crop(box):
    picture = grain(400, 300)
    x0, y0, x1, y1 = box
    expected = bilinear(normalised(picture)[y0 : y1 - 1, x0 : x1 - 1], 224)
    found = RegionCrop(box)(picture)
    assert found.shape == (3, 224, 224) and found.dtype == torch.float32
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=2e-4)


def test_the_exact_crop_is_the_whole_box_by_an_antialiased_kernel():
    picture, box = grain(400, 300), (10, 20, 360, 290)
    expected = normalised(picture.crop(box).resize((224, 224), Image.Resampling.BICUBIC))
    found = RegionCrop(box, "exact")(picture).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(RegionCrop(box)(picture).permute(1, 2, 0).numpy() - expected).max() > 0.5
    assert RegionCrop(box, "exact").name != RegionCrop(box).name != RegionCrop((0, 0, 9, 9)).name


def test_the_exemplar_is_squashed():
    picture = grain(90, 40)
    expected = normalised(picture.resize((224, 224), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(whole(picture).permute(1, 2, 0).numpy(), expected, atol=2e-5)


def test_cosine():
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [3.0, 4.0]])
    b = torch.tensor([[5.0, 0.0], [1.0, 0.0], [0.0, -1.0], [4.0, 3.0]])
    assert cosine_score(a, b).tolist() == pytest.approx([100, 50 * 2**0.5, -100, 96])


def test_the_score_sees_the_box_and_all_of_the_exemplar():
    exemplar, other, picture, box = (
        photo(50, 60, seed=1),
        photo(70, 50, seed=2),
        photo(100, 80, seed=3),
        (20, 10, 70, 70),
    )
    picture.paste(exemplar, box[:2])
    exact, original, *exemplars = (
        see(image).flatten()[None, ::97]
        for see, image in [
            (RegionCrop(box, "exact"), picture),
            (RegionCrop(box), picture),
            (whole, exemplar),
            (whole, other),
        ]
    )
    assert cosine_score(exact, exemplars[0]).item() == pytest.approx(100, abs=1e-3)
    assert cosine_score(exact, exemplars[1]).item() < 95
    assert cosine_score(original, exemplars[0]).item() < 100 - 1e-2  # a row and a column are missing


@pytest.mark.parametrize("box", [(0, 0, 1, 30), (5, 5, 30, 6)])
def test_nothing_is_left_of_the_original_crop_of_one_row_or_column(box):
    with refused(",".join(map(str, box))):
        RegionCrop(box)(photo(40, 40))
    assert RegionCrop(box, "exact")(photo(40, 40)).shape == (3, 224, 224)


def test_a_box_beyond_the_picture():
    with refused("0,0,41,40", "40x40"):
        RegionCrop((0, 0, 41, 40), "exact")(photo(40, 40))
