"""Holes of several pictures filled at once by RePaint, each as if it were alone."""

import numpy as np
import pytest
import torch

from ldm.editors.repaint import RePaint, RePaintRequest
from ldm.utils.errors import UserError
from tests.editors.test_repaint import FAST, hole, picture, pixel_classifier, pixel_model
from tests.refusals import assert_line
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


def request(size, row, **told):
    return RePaintRequest(picture(*size, seed=row), hole(*size), **told, seed=SEEDS[row])


def filled(editor, requests):
    return [result.images[0] for result in editor.edit_all(requests)]


@pytest.mark.parametrize("case", CASES)
def test_each_is_filled_as_if_it_were_alone(case):
    model, guide, sizes, each = CASES[case]
    editor = RePaint(model(), classifier=guide and guide(), **FAST, guidance_scale=2.0, classifier_scale=20.0)
    told = [{name: values[row] for name, values in each.items()} for row in range(len(sizes))]
    together = filled(editor, [request(size, row, **told[row]) for row, size in enumerate(sizes)])
    for row, (size, own) in enumerate(zip(sizes, told, strict=True)):
        (alone,) = editor(picture(*size, seed=row), hole(*size), **own, seed=SEEDS[row]).images
        assert np.abs(np.array(together[row]).astype(int) - np.array(alone)).max() <= 1
        assert together[row].tobytes() != picture(*size, seed=row).tobytes()
    if each:  # what is told to one picture is not told to another
        swapped = filled(editor, [request(size, row, **told[-1 - row]) for row, size in enumerate(sizes)])
        assert all((np.array(a) != np.array(b)).any() for a, b in zip(swapped, together, strict=True))


def test_windows_of_one_size_are_one_batch():
    editor, batches = RePaint(pixel_model(), **FAST), []
    handle = editor.model.unet.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape)))
    try:
        editor.edit_all([request(size, row) for row, size in enumerate(SMALL)])
    finally:
        handle.remove()
    calls = editor.settings.calls()
    assert batches == [(2, 3, 16, 16)] * calls + [(2, 3, 14, 20)] * calls


def test_a_picture_with_nothing_known_is_wrong_alone():
    editor, size = RePaint(pixel_model(), **FAST, crop="auto"), (32, 32)
    rows = np.zeros(size, dtype=np.uint8)
    rows[::2] = 255
    requests = [RePaintRequest(picture(*size), mask) for mask in (torch.ones(1, 1, *size), rows, hole(*size))]
    *wrong, right = editor.edit_all(requests)
    for error, wanted in zip(wrong, ("mask", ("mask", "crop", "auto")), strict=True):
        assert isinstance(error, UserError)
        assert_line(str(error), wanted)
    assert right.images[0].size == size
