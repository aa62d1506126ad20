import numpy as np
import pytest
import torch
from PIL import Image

from ldm.editors.diffedit import DiffEdit
from ldm.evaluation.metrics import psnr
from ldm.runs.diffedits import round_trips, save_diffedit, save_maps
from ldm.runs.outputs import labelled_row
from ldm.utils.overlay import heat_map, overlay
from ldm.utils.png import read_settings
from tests.tiny import tiny_text_model
from tests.utils.pictures import mask, photo

PROMPTS = ["a blue ball", "a red mug"]


@pytest.fixture(scope="module")
def editor():
    return DiffEdit(tiny_text_model(), steps=3, n_maps=1, threshold=0.3)


@pytest.fixture(scope="module")
def result(editor):
    return editor(photo(), PROMPTS, "a ball")


def opened(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_every_picture_is_a_file_with_its_own_prompt_and_figures(result, tmp_path):
    figures = [{"round_trip_psnr": 1.5}, {"round_trip_psnr": 2.5}]
    paths = save_diffedit(result, photo(), PROMPTS, tmp_path, "a b", {"version": "1"}, figures, show_map=True)
    assert sorted(paths) == sorted(tmp_path.rglob("*.png")) and len(paths) == 2 * 5 + 1
    assert paths[:2] == [tmp_path / "results" / f"a b_000{i}.png" for i in range(2)]
    for i, prompt in enumerate(PROMPTS):
        name = f"a b_000{i}"
        assert np.array_equal(opened(tmp_path / "results" / f"{name}.png"), np.asarray(result.images[i]))
        assert np.array_equal(opened(tmp_path / "source" / f"{name}_mask.png"), np.asarray(result.masks[i]))
        assert np.array_equal(opened(tmp_path / "map" / f"{name}.png"), np.asarray(heat_map(result.maps[i])))
        settings = read_settings(tmp_path / "results" / f"{name}.png")
        assert {"version": "1", "prompt": prompt, "steps": 3, **figures[i]}.items() <= settings.items()


def test_map_and_overlay_are_in_every_grid_and_files_only_if_wanted(result, tmp_path):
    *paths, grid = save_diffedit(result, photo(), PROMPTS, tmp_path, "scene", {})
    assert {path.parent.name for path in paths} == {"results", "source"}
    rows = []
    for values, hole, prompt, edited in zip(result.maps, result.masks, PROMPTS, result.images, strict=True):
        shown = {"image": photo(), "map": heat_map(values), "mask": hole, "overlay": overlay(photo(), hole)}
        rows.append(np.asarray(labelled_row([*shown.items(), (prompt, edited)])))
    assert np.array_equal(opened(grid), np.concatenate(rows))


def test_a_long_prompt_does_not_widen_the_grid(editor, tmp_path):
    result = editor(photo(), "a ball", mask=mask())
    widths = []
    for prompt in ("a ball", "a ball and " * 40, "x" * 400):
        *_, grid = save_diffedit(result, photo(), [prompt], tmp_path, "scene", {})
        widths.append(opened(grid).shape[1])
    assert max(widths) <= widths[0] + 50


def test_the_numbers_go_on_from_the_highest_in_any_folder(result, tmp_path):
    for kind, name in (("map", "scene_0003"), ("results", "scene_0001"), ("results", "scene_0009_0017"), ("grid", "x")):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / f"{name}.png").touch()
    assert save_diffedit(result, photo(), PROMPTS, tmp_path, "scene", {})[0].name == "scene_0004.png"
    (path, _) = save_maps(result.maps, PROMPTS, tmp_path, "scene", {"threshold": 0.5})
    assert path == tmp_path / "map" / "scene_0006.png"
    assert read_settings(path) == {"threshold": 0.5, "prompt": PROMPTS[0]}
    assert save_maps(result.maps, PROMPTS, tmp_path, "scene_0009", {})[0].name == "scene_0009_0018.png"


def test_the_round_trip_is_that_of_the_latents(editor, result):
    stages = []
    measured = round_trips(editor, result.inversions, lambda stage, n: stages.append((stage, n)))
    assert stages == [("round trip", 1)] * 2  # one inversion for both targets, undone once
    inversion = result.inversions[0]
    pictures = [editor.decode(z).clamp(-1, 1) for z in (editor.reconstruct(inversion), inversion.latents[0])]
    assert measured == [pytest.approx(psnr(*pictures).item(), rel=1e-5)] * 2


def test_each_window_of_crop_auto_has_its_own_round_trip(editor):
    hole = torch.zeros(1, 1, 32, 48)
    hole[..., :6, :6] = 1
    (whole,), (part,) = (editor(photo(), "a ball", mask=m, crop="auto").inversions for m in (hole, 1 - hole))
    measured = round_trips(editor, [whole, part, whole])
    assert measured[0] == measured[2] != measured[1]
