"""Several exemplars of one edit, and several edits of one batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.editors.exemplar import ExemplarEditor, ExemplarRequest
from ldm.editors.exemplars import mix_exemplars
from ldm.utils.errors import UserError
from tests.editors.test_exemplar import FAST, arrays, edit
from tests.refusals import refused
from tests.tiny import tiny_model
from tests.utils.pictures import mask, photo


def test_several_exemplars_are_the_weighted_mean_of_their_contexts():
    editor, pictures = ExemplarEditor(tiny_model(), **FAST), [photo(40, 30, seed=seed) for seed in (7, 8, 9)]
    conditioner = editor.model.conditioner
    squares, context = mix_exemplars(conditioner, pictures, [2, 1, 1], "stretch")
    single = [mix_exemplars(conditioner, picture, None, "stretch") for picture in pictures]
    assert [square.tobytes() for square in squares] == [seen[0].tobytes() for seen, _ in single]
    first, second, third = (told.numpy() for _, told in single)
    assert np.abs(context.numpy() - (first / 2 + second / 4 + third / 4)).max() < 1e-6 < np.abs(first - second).max()
    even = mix_exemplars(conditioner, pictures, None, "stretch")[1].numpy()
    assert np.abs(even - (first + second + third) / 3).max() < 1e-6
    assert torch.equal(mix_exemplars(conditioner, pictures[:1], [0.3], "stretch")[1], single[0][1])


def test_an_edit_by_several_exemplars():
    pictures = [photo(40, 30, seed=seed) for seed in (7, 8)]
    mixed, even, first = (edit(reference=pictures, weights=w) for w in ([3, 1], None, [1, 1e-9]))
    assert len(mixed.exemplars) == 2
    assert (arrays(mixed)[0] != arrays(even)[0]).any()
    assert np.abs(arrays(first)[0] - arrays(edit())[0]).max() <= 1  # the other one hardly counts
    assert np.array_equal(arrays(edit(reference=pictures[:1]))[0], arrays(edit())[0])


@pytest.mark.parametrize("exemplars, weights, wanted", [
    (2, [1], ("weights", "[1]", 2)),
    (2, [1, 0], ("weights", "[1, 0]")),
    (2, [1, float("nan")], ("weights", "nan")),
    (2, [1, float("inf")], ("weights", "inf")),
    (0, None, "exemplar"),
])  # fmt: skip
def test_weights_that_do_not_fit(exemplars, weights, wanted):
    with refused(wanted):
        edit(reference=[photo()] * exemplars, weights=weights)


def requests(sizes):
    """Scenes of these sizes, each with a hole, an exemplar and a seed of its own."""
    return [
        ExemplarRequest(
            photo(*size, seed=20 + i),
            mask(*size, box=(8, 4 + i, 20 + i, 16 + i)),
            photo(40, 30, seed=40 + i),
            seed=100 * i,
        )
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_scenes_of_all_sizes_at_once_are_their_single_edits(crop):
    editor = ExemplarEditor(tiny_model(), **FAST, sampler="ddim", eta=1.0)
    batch = requests([(48, 32), (61, 40), (48, 32), (48, 32)])
    for request, result in zip(batch, editor.edit_all(batch, crop=crop), strict=True):
        alone = editor(request.image, request.mask, request.exemplar, seed=request.seed, crop=crop)
        (one,), (other,) = result.images, alone.images
        assert one.size == other.size and result.seeds == alone.seeds
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_what_is_wrong_with_a_request_is_wrong_with_it_alone():
    editor = ExemplarEditor(tiny_model(), **FAST)
    wrong, right = requests([(48, 32)] * 2)
    results = editor.edit_all([replace(wrong, mask=Image.new("L", (48, 32))), right])
    assert isinstance(results[0], UserError) and results[1].images[0].size == (48, 32)


def test_in_a_batch_of_one_size_an_edit_does_not_depend_on_the_others():
    """Bit for bit: what `ldm.runs.work` relies on."""
    editor, batch = ExemplarEditor(tiny_model(), **FAST), requests([(48, 32)] * 5)

    def edited(*rows: int) -> np.ndarray:
        return np.asarray(editor.edit_all([batch[row] for row in rows])[0].images[0])

    assert np.array_equal(edited(0, 1, 2), edited(0, 4, 3))
    assert (edited(0, 1, 2) != edited(1, 0, 2)).any()


def test_huge_weights_are_weights():
    pictures = [photo(seed=1), photo(seed=2)]
    mixed, even = (edit(reference=pictures, weights=w) for w in ([1e308, 1e308], None))
    assert np.array_equal(arrays(mixed)[0], arrays(even)[0])
