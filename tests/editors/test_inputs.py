"""Editors take pictures and masks as people have them, one or a list, and give results that can be kept."""

import numpy as np
import pytest
import torch
from PIL import Image

import ldm
from ldm.editors.diffedit import DiffEdit
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.repaint import RePaint
from ldm.presets import EditSettings
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
    assert EditSettings(**read_settings(first[0])) == result.settings
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
