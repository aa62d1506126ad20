import numpy as np
import torch
from PIL import Image

from ldm.utils.overlay import heat_map, overlay, tint
from tests.utils.pictures import mask, photo


def test_the_veil_lies_on_the_mask_alone():
    image, veil = torch.rand(3, 4, 6) * 2 - 1, torch.zeros(1, 4, 6)
    veil[..., 1:3, 2:4] = 1
    tinted = tint(image, veil)
    assert torch.equal(tinted[:, veil[0] == 0], image[:, veil[0] == 0])
    expected = (image[:, 1:3, 2:4] + torch.tensor([1.0, -1, -1])[:, None, None]) / 2
    assert torch.allclose(tinted[:, 1:3, 2:4], expected, atol=1e-6)


def test_an_overlay_is_grey_but_for_the_mask_even_of_a_red_picture():
    for picture in (photo(), Image.new("RGB", (48, 32), "red"), photo().convert("RGBA")):
        red, green, blue = np.moveaxis(np.asarray(overlay(picture, mask())).astype(int), -1, 0)
        assert np.array_equal(green, blue)
        assert np.array_equal(red > green, np.asarray(mask()) == 255)
        outside = np.asarray(mask()) == 0
        assert np.array_equal(red[outside], np.asarray(picture.convert("L"))[outside])


def test_a_heat_map_goes_from_black_over_red_and_yellow_to_white():
    picture = np.asarray(heat_map(torch.tensor([[0, 1 / 3, 2 / 3, 1]])))
    assert picture[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]
    brightness = np.asarray(heat_map(torch.linspace(0, 1, 101)[None])).sum(-1, dtype=int)[0]
    assert (np.diff(brightness) > 0).all()
