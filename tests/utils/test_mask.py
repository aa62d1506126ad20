import numpy as np
import pytest
import torch
from PIL import Image

from ldm.utils.mask import fit_mask, open_mask, parse_mask
from tests.refusals import assert_line, refused
from tests.utils.pictures import mask, photo

SIZE = (48, 32)
EXPECTED = torch.from_numpy(np.asarray(mask()) == 255)[None, None].float()


def red_on_black():
    return Image.merge("RGB", (mask(), Image.new("L", SIZE), Image.new("L", SIZE)))


def in_alpha(colour):
    picture = Image.new("RGB", SIZE, colour)
    picture.putalpha(mask())
    return picture


def white_strokes_on_a_transparent_photo():
    picture = photo()
    picture.paste("white", mask=mask())
    picture.putalpha(mask())
    return picture


FORMS = {
    "L": mask(),
    "1": mask().convert("1"),
    "RGB": mask().convert("RGB"),
    "P": mask().convert("P"),
    "opaque RGBA": mask().convert("RGBA"),
    "zeros and ones": mask().point(lambda v: v // 255),
    "16 bits": Image.fromarray(np.asarray(mask()).astype(np.uint16) * 257),
    "red on black": red_on_black(),
    "in the alpha of black": in_alpha("black"),
    "in the alpha of white": in_alpha("white"),
    "white strokes, transparent elsewhere": white_strokes_on_a_transparent_photo(),
}


@pytest.mark.parametrize("picture", FORMS.values(), ids=FORMS)
def test_every_form_of_a_mask_is_the_same_mask(tmp_path, picture):
    picture.save(tmp_path / "mask.png")
    opened = open_mask(tmp_path / "mask.png", SIZE)
    assert opened.dtype == torch.float32
    assert torch.equal(opened, EXPECTED)


def test_noise_of_jpeg_does_not_matter(tmp_path):
    mask().save(tmp_path / "mask.jpg", quality=20)
    assert torch.equal(open_mask(tmp_path / "mask.jpg", SIZE), EXPECTED)


def test_the_threshold_is_128():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert parse_mask(ramp, (256, 1))[0, 0, 0].tolist() == [0] * 128 + [1] * 128
    assert parse_mask(ramp, (256, 1), rule="luma")[0, 0, 0].tolist() == [0] * 128 + [1] * 128


def test_the_originals_rule_goes_by_brightness():
    with refused("mask"):
        parse_mask(red_on_black(), SIZE, rule="luma")


def test_inverted():
    assert torch.equal(parse_mask(mask(), SIZE, invert=True), 1 - EXPECTED)


def test_all_white_is_a_mask_and_all_black_is_none():
    white = Image.new("L", SIZE, 255)
    assert parse_mask(white, SIZE).min() == 1
    with refused("mask", "white", 0):
        parse_mask(Image.new("L", SIZE), SIZE)
    with refused("mask", "black"):
        parse_mask(white, SIZE, invert=True)


def test_a_single_pixel_is_a_mask():
    assert parse_mask(mask(*SIZE, box=(20, 20, 21, 21)), SIZE).sum() == 1


@pytest.mark.parametrize("scale", [0.5, 2, 0.4])
def test_another_size_of_the_same_shape_is_resized_and_said_so(caplog, scale):
    small = mask().resize((round(48 * scale), round(32 * scale)), Image.Resampling.NEAREST)
    opened = parse_mask(small, SIZE)
    assert set(opened.unique().tolist()) == {0, 1}
    assert abs(opened.mean() - EXPECTED.mean()) < 0.06
    (message,) = caplog.messages
    assert_line(message, f"{small.width}x{small.height}", "48x32")


def test_another_size_may_be_refused():
    with refused("mask", "24x16", "48x32"):
        parse_mask(mask(24, 16), SIZE, resize=False)
    assert torch.equal(parse_mask(mask(), SIZE, resize=False), EXPECTED)


def test_another_shape_is_refused():
    with refused("30x22", "48x32"):
        parse_mask(Image.new("L", (30, 22), 255), SIZE)


def test_a_transposed_mask_is_called_so():
    with refused("32x48", "48x32"):
        parse_mask(mask(32, 48), SIZE)


def test_the_file_is_named(tmp_path):
    Image.new("L", SIZE).save(tmp_path / "black.png")
    with refused(tmp_path / "black.png"):
        open_mask(tmp_path / "black.png", SIZE)


def test_a_tensor_is_a_mask_from_a_half_on():
    soft = EXPECTED * 0.5 + 0.49 * (1 - EXPECTED)
    for values in (soft, EXPECTED, EXPECTED.bool(), EXPECTED.byte()):
        fitted = fit_mask(values, SIZE)
        assert fitted.dtype == torch.float32 and torch.equal(fitted, EXPECTED)
    with refused("mask", 0.5):
        fit_mask(soft * 0.9, SIZE)
