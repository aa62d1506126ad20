"""scripts/inference.py with a box in the place of a mask."""

import re

import numpy as np
import pytest

from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.refusals import assert_refused
from tests.utils.pictures import mask, photo


@pytest.fixture
def in_a_box(inference, files):
    """`inference` with --box in the place of --mask_path."""

    def run(*flags: object, box="15,10,45,30", **changes: object) -> tuple[int, str, str]:
        return inference(*flags, f"--box={box}", "--n_maps=2", hole=None, **changes)

    return run


def test_a_box_finds_the_mask_in_it(in_a_box, tmp_path):
    code, out, err = in_a_box()
    assert (code, err) == (0, "")
    assert re.fullmatch(r"mask: \d+% of the box", out.splitlines()[1])
    sources = {f"source/scene_exemplar_3_{kind}.png" for kind in ("GT", "mask", "inpaint", "ref", "map")}
    assert written(tmp_path / "out") == {"results/scene_exemplar_3.png", "grid/grid-scene_exemplar_3.png"} | sources
    box, found = np.asarray(mask(60, 40)) > 0, pixels(tmp_path / "out/source/scene_exemplar_3_mask.png") > 0
    assert found.any() and not found[~box].any() and not found[box].all()
    assert not pixels(tmp_path / "out/source/scene_exemplar_3_map.png")[~box].any()
    changed = (pixels(tmp_path / "out/results/scene_exemplar_3.png") != np.asarray(photo(60, 40))).any(-1)
    assert changed[found].mean() > 0.9
    expected = {"box": [15, 10, 45, 30], "n_maps": 2, "strength": 0.5, "threshold": 0.2, "clamp": 3.0}
    assert expected.items() <= read_settings(tmp_path / "out/results/scene_exemplar_3.png").items()


def test_a_box_is_in_pixels_of_the_scene_before_it_is_resized(in_a_box, tmp_path):
    assert in_a_box("--skip_grid", H=20, W=30)[0] == 0
    rows, columns = np.nonzero(pixels(tmp_path / "out/source/scene_exemplar_3_map.png").any(-1))
    assert pixels(tmp_path / "out/source/scene_exemplar_3_mask.png").shape == (20, 30)
    assert rows.min() >= 5 and rows.max() < 15 and columns.min() >= 7 and columns.max() < 23


def test_an_empty_mask_is_said_so_and_its_map_is_kept(in_a_box, files, tmp_path):
    photo(60, 40).crop((15, 10, 45, 30)).save(files / "same.png")
    code, out, err = in_a_box(reference_path=files / "same.png")
    assert_refused((code, out, err), "15,10,45,30", code=3, stdout=True)
    assert written(tmp_path / "out") == {"source/scene_same_3_map.png"}
    assert out.splitlines()[-1] == str(tmp_path / "out/source/scene_same_3_map.png")


def test_settings_of_the_mask_without_a_box_are_noted(inference):
    assert inference("--skip_grid", n_maps=3)[2] == "note: --n_maps: the mask is given, without effect\n"


@pytest.mark.parametrize(
    "box, wanted",
    [
        ("30,10,30,30", "30,10,30,30"),
        ("15,10,61,30", ("15,10,61,30", "60x40")),
        ("-1,10,45,30", ("-1,10,45,30", "60x40")),
        ("15,10,45", ("--box", "15,10,45")),
        ("a,b,c,d", ("--box", "a,b,c,d")),
    ],
)
def test_a_wrong_box_is_named(in_a_box, tmp_path, box, wanted):
    assert_refused(in_a_box(box=box), wanted, stdout=True)
    assert not (tmp_path / "out").exists()


def test_a_box_goes_with_no_mask(inference, in_a_box):
    assert_refused(inference("--box=1,1,9,9"), "--box", "--mask")
    assert_refused(in_a_box("--invert_mask"), "--invert_mask", "--mask")
    assert_refused(in_a_box(threshold=1.5), "threshold", 1.5)
