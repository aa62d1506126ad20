"""Several exemplars of one edit, and several edits of one batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.presets import exemplar_editor
from ldm.utils.errors import UserError
from ldm.utils.mask import parse_mask
from tests.editors.test_exemplar import FAST, arrays, edit
from tests.tiny import tiny_model
from tests.utils.pictures import mask, photo


def test_several_exemplars_are_the_weighted_mean_of_their_contexts():
    editor, pictures = exemplar_editor(tiny_model(), **FAST), [photo(40, 30, seed=seed) for seed in (7, 8, 9)]
    squares, context = editor.condition(pictures, [2, 1, 1], "stretch")
    single = [editor.condition(picture, None, "stretch") for picture in pictures]
    assert [square.tobytes() for square in squares] == [seen[0].tobytes() for seen, _ in single]
    first, second, third = (told.numpy() for _, told in single)
    assert np.abs(context.numpy() - (first / 2 + second / 4 + third / 4)).max() < 1e-6 < np.abs(first - second).max()
    even = editor.condition(pictures, None, "stretch")[1].numpy()
    assert np.abs(even - (first + second + third) / 3).max() < 1e-6
    assert torch.equal(editor.condition(pictures[:1], [0.3], "stretch")[1], single[0][1])


def test_an_edit_by_several_exemplars():
    pictures = [photo(40, 30, seed=seed) for seed in (7, 8)]
    mixed, even, first = (edit(reference=pictures, weights=w) for w in ([3, 1], None, [1, 1e-9]))
    assert len(mixed.exemplars) == 2
    assert (arrays(mixed)[0] != arrays(even)[0]).any()
    assert np.abs(arrays(first)[0] - arrays(edit())[0]).max() <= 1  # the other one hardly counts
    assert np.array_equal(arrays(edit(reference=pictures[:1]))[0], arrays(edit())[0])


@pytest.mark.parametrize("exemplars, weights, message", [
    (2, [1], r"weights \[1\]: expected one for each exemplar, 2, all above 0"),
    (2, [1, 0], "weights"),
    (2, [1, float("nan")], "weights"),
    (2, [1, float("inf")], "weights"),
    (0, None, "exemplar: there is none"),
])  # fmt: skip
def test_weights_that_do_not_fit(exemplars, weights, message):
    with pytest.raises(UserError, match=message):
        edit(reference=[photo()] * exemplars, weights=weights)


def jobs(editor, sizes, crop="none"):
    """Scenes of these sizes, each with a hole, an exemplar and a seed of its own; and each edited alone."""
    settings = replace(editor.settings, crop=crop)
    pictures = [photo(*size, seed=20 + i) for i, size in enumerate(sizes)]
    holes = [mask(*size, box=(8, 4 + i, 20 + i, 16 + i)) for i, size in enumerate(sizes)]
    exemplars = [photo(40, 30, seed=40 + i) for i in range(len(sizes))]
    regions = [editor.region(p, parse_mask(h, p.size), settings) for p, h in zip(pictures, holes, strict=True)]
    contexts = [editor.condition(exemplar, None, "stretch")[1] for exemplar in exemplars]
    seeds = [100 * i for i in range(len(sizes))]
    alone = [
        editor(*parts, seed=seed, crop=crop).images[0]
        for *parts, seed in zip(pictures, holes, exemplars, seeds, strict=True)
    ]
    return (regions, contexts, seeds, settings), alone


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_scenes_of_all_sizes_at_once_are_their_single_edits(crop):
    editor = exemplar_editor(tiny_model(), **FAST, sampler="ddim", eta=1.0)
    batch, alone = jobs(editor, [(48, 32), (61, 40), (48, 32), (48, 32)], crop)
    together = editor.edit_all(*batch)
    for one, other in zip(together, alone, strict=True):
        assert one.size == other.size
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_in_a_batch_of_one_size_an_edit_does_not_depend_on_the_others():
    """Bit for bit: what `ldm.runs.work` relies on."""
    editor = exemplar_editor(tiny_model(), **FAST)
    (regions, contexts, seeds, settings), _ = jobs(editor, [(48, 32)] * 5)

    def edited(*rows: int) -> Image.Image:
        parts = ([part[row] for row in rows] for part in (regions, contexts, seeds))
        return editor.edit_all(*parts, settings)[0]

    assert np.array_equal(edited(0, 1, 2), edited(0, 4, 3))
    assert (np.asarray(edited(0, 1, 2)) != np.asarray(edited(1, 0, 2))).any()


def test_huge_weights_are_weights():
    pictures = [photo(seed=1), photo(seed=2)]
    mixed, even = (edit(reference=pictures, weights=w) for w in ([1e308, 1e308], None))
    assert np.array_equal(arrays(mixed)[0], arrays(even)[0])
