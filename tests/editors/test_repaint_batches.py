"""Holes of several pictures filled at once by RePaint, each as if it were alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.presets import repaint_editor
from ldm.utils.errors import UserError
from ldm.utils.mask import fit_mask
from tests.editors.test_repaint import FAST, hole, picture, pixel_classifier, pixel_model
from tests.tiny import tiny_model, tiny_text_model

SMALL = [(16, 16), (20, 14), (16, 16), (20, 14)]
LARGE = [(64, 64), (80, 56), (64, 64), (80, 56)]
SEEDS = [5, 5, 0, 9]
CLASSES = {"class_id": [4, 0, 1, 2]}
PROMPTS = {"prompt": ["a red ball", "a mug", "a blue ball", "a mug"], "negative": ["a mug", "", "", "a ball"]}
EXEMPLARS = {"exemplar": [picture(9, 7, seed=k) for k in range(4)]}
CASES = {
    "pictures": (pixel_model, None, SMALL, {}),
    "classes": (lambda: pixel_model(num_classes=5), None, SMALL, CLASSES),
    "classifier": (pixel_model, pixel_classifier, [(16, 16)] * 4, CLASSES),
    "prompts": (tiny_text_model, None, LARGE, PROMPTS),
    "exemplars": (tiny_model, None, LARGE, EXEMPLARS),
}


def region(editor, size, row):
    return editor.region(picture(*size, seed=row), fit_mask(hole(*size), size), editor.settings)


@pytest.mark.parametrize("case", CASES)
def test_each_is_filled_as_if_it_were_alone(case):
    model, guide, sizes, each = CASES[case]
    editor = repaint_editor(model(), classifier=guide and guide(), **FAST, guidance_scale=2.0, classifier_scale=20.0)
    told = [{name: values[row] for name, values in each.items()} for row in range(len(sizes))]
    regions = [region(editor, size, row) for row, size in enumerate(sizes)]
    together = editor.fill_all(regions, [editor.wish(**own) for own in told], SEEDS, editor.settings)
    for row, (size, own) in enumerate(zip(sizes, told, strict=True)):
        (alone,) = editor(picture(*size, seed=row), hole(*size), **own, seed=SEEDS[row]).images
        assert np.abs(np.array(together[row]).astype(int) - np.array(alone)).max() <= 1
        assert together[row].tobytes() != picture(*size, seed=row).tobytes()
    if each:  # what is told to one picture is not told to another
        wrong = [editor.wish(**own) for own in told[::-1]]
        swapped = editor.fill_all(regions, wrong, SEEDS, editor.settings)
        assert all((np.array(a) != np.array(b)).any() for a, b in zip(swapped, together, strict=True))


def test_windows_of_one_size_are_one_batch():
    editor, batches = repaint_editor(pixel_model(), **FAST), []
    handle = editor.model.unet.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape)))
    try:
        regions = [region(editor, size, row) for row, size in enumerate(SMALL)]
        editor.fill_all(regions, [editor.wish()] * 4, SEEDS, editor.settings)
    finally:
        handle.remove()
    calls = editor.settings.calls()
    assert batches == [(2, 3, 16, 16)] * calls + [(2, 3, 14, 20)] * calls


def test_a_region_with_nothing_known_is_refused_before_any_batch():
    editor, size = repaint_editor(pixel_model(), **FAST, crop="auto"), (32, 32)
    rows = np.zeros(size, dtype=np.uint8)
    rows[::2] = 255
    for mask, message in [
        (torch.ones(1, 1, *size), "mask: everything is selected"),
        (fit_mask(Image.fromarray(rows), size), "mask: leaves no known pixel: crop auto shrinks"),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            editor.region(picture(*size), mask, editor.settings)
