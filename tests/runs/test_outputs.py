import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.runs.outputs import check_writable, labelled_row
from ldm.utils.png import read_settings, save_png
from tests.refusals import refused
from tests.utils.folders import closed
from tests.utils.pictures import photo, png_bytes


def test_a_picture_carries_its_settings(tmp_path):
    settings = {"seed": 3, "image": "ünïcødé.png", "guidance_scale": 5.0, "match_colour": True}
    save_png(photo(), tmp_path / "new" / "a.png", settings)
    assert read_settings(tmp_path / "new" / "a.png") == settings
    with Image.open(tmp_path / "new" / "a.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(photo()))


def test_a_picture_without_settings_says_so(tmp_path):
    save_png(photo(), tmp_path / "a.png")
    photo().save(tmp_path / "b.jpg")
    for name in ("a.png", "b.jpg"):
        with refused(tmp_path / name):
            read_settings(tmp_path / name)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_png(photo(), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def breaks_off(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", breaks_off)
    with refused(tmp_path / "a.png", "no space left"):
        save_png(photo(seed=1), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_folder_that_can_be_written_is_left_alone(tmp_path):
    check_writable(tmp_path)
    check_writable(tmp_path / "new" / "newer")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_out(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "new" / ("x" * 300)):
        with refused(folder):
            check_writable(folder)
    with closed(tmp_path), refused(tmp_path / "new"):
        check_writable(tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_row_holds_its_pictures_at_one_height():
    small, tall = photo(30, 80), photo(30, 160, seed=1)
    row = labelled_row([("a", small), ("b", tall)], height=80)
    pixels = np.asarray(row)
    place = next(x for x in range(20) if np.array_equal(pixels[-88:-8, x : x + 30], np.asarray(small)))
    rest = pixels[-88:-8, place + 38 : place + 53]
    assert np.array_equal(rest, np.asarray(tall.resize((15, 80))))
    assert (pixels[:-88].min(axis=(0, 2)) < 128).any()  # the captions


@pytest.mark.parametrize("height, expected", [(40, 192), (192, 192), (300, 300)])
def test_small_pictures_are_enlarged(height, expected):
    assert expected < labelled_row([("a", photo(40, height))]).height < expected + 50


def test_a_wide_picture_is_not_enlarged_to_something_huge():
    assert labelled_row([("a", photo(5000, 3))]).width == 5000 + 2 * 8
    assert labelled_row([("a", photo(2048, 96))]).width == 2048 + 2 * 8
    assert labelled_row([("a", photo(1024, 96))]).width == 2048 + 2 * 8


def test_transparency_in_a_row_lies_on_grey():
    clear = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    assert (128, 128, 128) == labelled_row([("clear", clear)]).getpixel((40, 70))


def test_long_captions_do_not_run_into_each_other():
    one = labelled_row([("exemplar as encoded", photo(64, 64))], height=64)
    assert one.width > 64 + 2 * 8
    assert png_bytes(one) != png_bytes(labelled_row([("", photo(64, 64))], height=64))


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_settings_of_another_kind(tmp_path, text):
    info = PngInfo()
    info.add_text("ldm", text)
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png", pnginfo=info)
    with refused(tmp_path / "a.png"):
        read_settings(tmp_path / "a.png")
