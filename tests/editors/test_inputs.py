"""Editors take pictures and masks as people have them, one or a list, and give results that can be kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import ldm
from ldm.editors.diffedit import DiffEdit, DiffEditRequest
from ldm.editors.exemplar import ExemplarEditor, ExemplarRequest
from ldm.editors.repaint import RePaint, RePaintRequest
from ldm.presets import EditSettings, RePaintSettings
from ldm.utils.png import read_settings
from tests.editors.test_repaint import FAST as WALK
from tests.editors.test_repaint import hole, picture, pixel_model
from tests.refusals import refused
from tests.tiny import tiny_model, tiny_text_model
from tests.utils.pictures import mask, photo

FAST = {"steps": 2}


def pixels(image):
    return np.asarray(image)


def in_all_forms(image, tmp_path):
    image.save(tmp_path / "picture.png")
    array = np.array(image)
    tensor = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).float() / 255
    return image, tmp_path / "picture.png", str(tmp_path / "picture.png"), array, tensor, tensor[None]


def test_pictures_and_masks_come_in_any_form(tmp_path):
    editor = ExemplarEditor(tiny_model(), **FAST)
    expected = pixels(editor(photo(), mask(), photo(seed=7)).images[0])
    forms = zip(*(in_all_forms(image, tmp_path / name) for name, image in folders(tmp_path).items()), strict=True)
    for scene, region, exemplar in forms:
        assert np.array_equal(pixels(editor(scene, region, exemplar).images[0]), expected)
    assert np.array_equal(pixels(editor(photo(), np.array(mask()) > 127, photo(seed=7)).images[0]), expected)


def folders(tmp_path):
    found = {"scene": photo(), "mask": mask(), "exemplar": photo(seed=7)}
    for name in found:
        (tmp_path / name).mkdir()
    return found


@pytest.mark.parametrize("wrong", [None, 3, np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3)), torch.zeros(8, 8, 3)])
def test_anything_else_is_refused(wrong):
    exemplar, fill = ExemplarEditor(tiny_model(), **FAST), RePaint(pixel_model(), **WALK)
    with refused("image"):
        exemplar(wrong, mask(), photo())
    with refused("exemplar"):
        exemplar(photo(), mask(), wrong)
    with refused("image"):
        fill(wrong, hole(16, 16))
    with refused("image"):
        DiffEdit(tiny_text_model(), **FAST)(wrong, "a mug")
    for editor, arguments in ((exemplar, (photo(),)), (fill, ())):
        with refused("mask"):
            editor(photo(), wrong, *arguments)


def test_a_list_of_pictures_gives_a_list_of_results():
    editor = ExemplarEditor(tiny_model(), **FAST)
    scenes, exemplars = [photo(seed=1), photo(seed=2)], [photo(seed=7), photo(seed=8)]
    results = editor(scenes, mask(), exemplars, n_samples=2)
    for scene, exemplar, result in zip(scenes, exemplars, results, strict=True):
        alone = editor(scene, mask(), exemplar, n_samples=2)
        assert [np.array_equal(pixels(a), pixels(b)) for a, b in zip(result.images, alone.images, strict=True)] == [
            1,
            1,
        ]
    batch = torch.stack([torch.from_numpy(np.array(scene)).permute(2, 0, 1) / 255 for scene in scenes])
    assert len(editor(batch, [mask(), mask()], photo(seed=7))) == 2
    with refused(3, 2):
        editor(scenes, [mask()] * 3, photo())


def test_lists_of_the_other_editors():
    filled = RePaint(pixel_model(), **WALK)([picture(16, 16), picture(16, 16, seed=1)], hole(16, 16))
    assert [result.images[0].size for result in filled] == [(16, 16)] * 2
    edited = DiffEdit(tiny_text_model(), steps=3, n_maps=1)([photo(16, 16)] * 2, "a mug", mask=mask(16, 16))
    assert [result.images[0].size for result in edited] == [(16, 16)] * 2


def test_a_result_is_saved_beside_what_is_there(tmp_path):
    result = ExemplarEditor(tiny_model(), **FAST)(photo(), mask(), photo(seed=7), n_samples=2)
    first, second = result.save(tmp_path / "out", "scene"), result.save(tmp_path / "out", "scene")
    assert [path.name for path in (*first, *second)] == [f"scene_{k}.png" for k in range(4)]
    assert np.array_equal(pixels(Image.open(second[1])), pixels(result.images[1]))
    for path, seed in zip(first, result.seeds, strict=True):  # each says what it alone is made again from
        assert EditSettings(**read_settings(path)) == replace(result.settings, seed=seed, n_samples=1)
    with refused("../q"):
        result.save(tmp_path / "out", "../q")
    assert result._repr_png_().startswith(b"\x89PNG")


def test_the_classes_are_the_packages():
    for name in ldm.__all__:
        assert name in dir(ldm) and getattr(ldm, name).__doc__
    editor = ldm.ExemplarEditor(tiny_model())
    assert isinstance(editor, ldm.ExemplarEditor) and ldm.ExemplarEditor is ExemplarEditor
    assert editor.to("cpu", torch.bfloat16).like.dtype == torch.bfloat16


def test_an_editor_from_its_configs_name():
    editor = ldm.RePaint.from_pretrained("toyworld_prior", device="cpu", settings="fast", steps=3)
    assert (editor.settings.sampler, editor.settings.steps) == ("ddim", 3)
    with refused("UNet"):
        ldm.ExemplarEditor.from_pretrained("toyworld_text", device="cpu")


@pytest.mark.parametrize("values", [(-1, 1), (0, 255), (float("nan"), 1)])
def test_a_tensor_of_other_values_is_refused(values):
    scene = torch.linspace(0, 1, 3 * 16 * 16).reshape(3, 16, 16)
    scene = values[0] + (values[1] - values[0]) * scene
    with refused("image", "0 to 1"):
        RePaint(pixel_model(), **WALK)(scene, hole(16, 16))


@pytest.mark.parametrize("name", ["toyworld_prior", "toyworld_judge", "toyworld_clip", "toyworld_text"])
def test_a_model_of_another_kind_is_refused(name):
    with refused("editing by example"):
        ldm.ExemplarEditor.from_pretrained(name, device="cpu")


@pytest.mark.parametrize("settings", [None, {}, RePaintSettings.read()])
def test_settings_of_another_kind_are_refused(settings):
    with refused("settings", "EditSettings"):
        ExemplarEditor(tiny_model(), settings)


def test_a_wrong_request_is_wrong_alone():
    editor, right = ExemplarEditor(tiny_model(), **FAST), ExemplarRequest(photo(), mask(), photo(seed=7), seed=9)
    wrong = [replace(right, seed=-1), replace(right, seed="x"), replace(right, weights=["1"]), replace(right, image=3)]
    *errors, result = editor.edit_all([*wrong, right])
    assert all(isinstance(error, ldm.UserError) for error in errors)
    assert result.seeds == [9] and result.settings.seed == 9
    editor, right = DiffEdit(tiny_text_model(), steps=2, n_maps=1), DiffEditRequest(photo(16, 16), "a mug", seed=3)
    wrong = [replace(right, targets=["a xyzzy"]), replace(right, targets=[3]), replace(right, seed=-1)]
    *errors, result = editor.edit_all([*wrong, right])
    assert all(isinstance(error, ldm.UserError) for error in errors) and result.settings.seed == 3
    editor, right = RePaint(tiny_text_model(), **WALK), RePaintRequest(picture(32, 32), hole(32, 32), prompt="a mug")
    error, result = editor.edit_all([replace(right, prompt="a xyzzy"), right])
    assert isinstance(error, ldm.UserError) and len(result.images) == 1


def test_every_scene_of_a_list_has_its_exemplar():
    editor, scenes = RePaint(tiny_model(), **WALK), [picture(32, 32), picture(32, 32, seed=1)]
    exemplars = [photo(9, 7, seed=1), photo(9, 7, seed=2)]
    for scene, exemplar, result in zip(
        scenes, exemplars, editor(scenes, hole(32, 32), exemplar=exemplars), strict=True
    ):
        assert np.array_equal(
            pixels(result.images[0]), pixels(editor(scene, hole(32, 32), exemplar=exemplar).images[0])
        )


def test_masks_as_arrays_of_any_shape():
    editor, region = ExemplarEditor(tiny_model(), **FAST), np.array(mask())
    expected = pixels(editor(photo(), mask(), photo(seed=7)).images[0])
    for given in (region[None], region[..., None], region / 255.0, (region / 255).astype(np.float32)):
        assert np.array_equal(pixels(editor(photo(), given, photo(seed=7)).images[0]), expected)
    assert np.array_equal(pixels(editor(np.array(photo())[None], mask(), photo(seed=7)).images[0]), expected)
