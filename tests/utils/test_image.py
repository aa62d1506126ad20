import io
import resource

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from ldm.utils.image import open_image, to_pil, to_tensor
from tests.refusals import assert_mentions, refused
from tests.utils.folders import closed
from tests.utils.pictures import photo, png_bytes, png_chunk, png_header, write_bomb, write_rgb16


def difference(a, b):
    return np.abs(np.asarray(a.convert("RGB"), int) - np.asarray(b.convert("RGB"), int)).mean()


@pytest.mark.parametrize("name", ["photo.png", "photo.bmp", "photo.tif", "name with spaces ünïcødé.png"])
def test_lossless_files_come_back_to_the_byte(tmp_path, name):
    photo().save(tmp_path / name)
    assert png_bytes(open_image(tmp_path / name)) == png_bytes(photo())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"format": "WEBP"}], ids=str)
def test_lossy_files_whatever_their_name(tmp_path, options):
    photo().save(tmp_path / "jpeg.png", **{"format": "JPEG", "quality": 95, **options})
    assert difference(open_image(tmp_path / "jpeg.png"), photo()) < 4


def test_bytes_behind_the_end_of_a_picture_do_not_matter(tmp_path):
    photo().save(tmp_path / "a.jpg", quality=95)
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"junk" * 128)
    assert difference(open_image(tmp_path / "a.jpg"), photo()) < 4


@pytest.mark.parametrize(
    "orientation, stored_as",
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_pictures_stand_upright(tmp_path, orientation, stored_as):
    stored = photo().transpose(stored_as)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert png_bytes(open_image(tmp_path / "a.png")) == png_bytes(photo())


def test_cmyk_keeps_its_colours(tmp_path):
    photo().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert difference(open_image(tmp_path / "a.jpg"), photo()) < 4


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened)[0, :, 0], np.arange(256))


def test_sixteen_bit_colour(tmp_path):
    pixels = np.asarray(photo()).astype(np.uint16) * 257
    assert png_bytes(open_image(write_rgb16(tmp_path / "a.png", pixels))) == png_bytes(photo())


def test_transparency_is_kept_beside_the_colours(tmp_path):
    alpha = Image.linear_gradient("L").resize((48, 32))
    rgba, grey = photo(), photo().convert("L")
    rgba.putalpha(alpha)
    grey.putalpha(alpha)
    for picture in (rgba, grey):
        picture.save(tmp_path / "a.png")
        opened = open_image(tmp_path / "a.png")
        assert opened.mode == "RGBA"
        assert png_bytes(opened) == png_bytes(picture.convert("RGBA"))


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = photo().quantize(16)
    picture.save(tmp_path / "a.png", transparency=3)
    opened = open_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(opened)[..., 3] == 0, np.asarray(picture) == 3)
    assert difference(opened, picture) == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_pictures_without_transparency_are_rgb(tmp_path, mode):
    photo().convert(mode).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").mode == "RGB"


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_of_an_animation_the_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    frames[0].save(
        tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if "webp" in name else {})
    )
    assert open_image(tmp_path / name).convert("RGB").getpixel((8, 8)) == (255, 0, 0)


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    """A profile whose red and green are exchanged: correct conversion exchanges them back."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, green = (srgb.index(tag) for tag in (b"rXYZ", b"gXYZ"))
    exchanged = bytearray(srgb)
    exchanged[red + 4 : red + 8], exchanged[green + 4 : green + 8] = (
        srgb[green + 4 : green + 8],
        srgb[red + 4 : red + 8],
    )
    photo().save(tmp_path / "a.png", icc_profile=bytes(exchanged))
    r, g, b = photo().split()
    assert difference(open_image(tmp_path / "a.png"), Image.merge("RGB", (g, r, b))) < 1
    photo().save(tmp_path / "plain.png", icc_profile=srgb)
    assert png_bytes(open_image(tmp_path / "plain.png")) == png_bytes(photo())


def test_a_profile_and_transparency_together(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = photo()
    picture.putalpha(77)
    picture.save(tmp_path / "a.png", icc_profile=srgb)
    assert png_bytes(open_image(tmp_path / "a.png")) == png_bytes(picture)


def test_a_broken_profile_is_ignored_and_said_so(tmp_path, caplog):
    photo().save(tmp_path / "a.png", icc_profile=b"no profile at all")
    assert png_bytes(open_image(tmp_path / "a.png")) == png_bytes(photo())
    assert_mentions(caplog.text, "a.png")


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (47, 31)])
def test_odd_sizes(tmp_path, size):
    photo(*size).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").size == size


def damaged_files():
    jpeg = io.BytesIO()
    photo(256, 256).save(jpeg, "JPEG")
    png = png_bytes(photo(64, 64))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    return {
        "truncated.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) * 2 // 5],
        "truncated.png": png[: len(png) // 2],
        "corrupt-crc.png": bytes(flipped),
        "zero-byte.png": b"",
        "text.png": b"this is no picture\n" * 6,
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "huge-header.png": png_header(2**31 - 1, 2**31 - 1, 8, 2) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""),
        "rather-large.png": png_header(10000, 10000, 8, 2) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b""),
    }


@pytest.mark.parametrize("name, content", damaged_files().items(), ids=damaged_files())
def test_damaged_files_are_named_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with refused(tmp_path / name):
        open_image(tmp_path / name)


def test_folders_and_missing_files(tmp_path):
    with refused(tmp_path):
        open_image(tmp_path)
    with refused(tmp_path / "nowhere.png"):
        open_image(tmp_path / "nowhere.png")


def test_a_path_that_cannot_be_looked_at(tmp_path):
    with refused(f"{'x' * 300}.png"):
        open_image(tmp_path / ("x" * 300 + ".png"))
    photo().save(tmp_path / "a.png")
    with closed(tmp_path), refused(tmp_path / "a.png"):
        open_image(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused_before_it_takes_memory(tmp_path, monkeypatch):
    bomb = write_bomb(tmp_path / "bomb.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with refused(bomb):
        open_image(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB; decoded it takes 860,000


def test_floating_point_pictures_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with refused(tmp_path / "a.tif"):
        open_image(tmp_path / "a.tif")


def test_to_tensor_and_back_is_exact():
    every_value = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, -1))
    tensor = to_tensor(every_value)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert png_bytes(to_pil(tensor[0])) == png_bytes(every_value)


def test_to_pil_rounds_or_truncates_and_clips():
    values = torch.tensor([-3.0, 3.0, 2 * 10.7 / 255 - 1, 2 * 10.2 / 255 - 1]).expand(3, 1, 4)
    assert np.asarray(to_pil(values))[0, :, 0].tolist() == [0, 255, 11, 10]
    assert np.asarray(to_pil(values, "truncate"))[0, :, 0].tolist() == [0, 255, 10, 10]
