"""Several pictures edited at once by DiffEdit, each as if it were alone."""

import numpy as np
import pytest

from ldm.editors.diffedit import DiffEdit, DiffEditRequest, DiffEditResult
from ldm.editors.mask_inference import EmptyMask
from ldm.utils.errors import UserError
from tests.editors.analytic import analytic_model
from tests.refusals import assert_line, mentions
from tests.utils.pictures import mask, photo

FAST = {"steps": 5, "n_maps": 2}
REQUESTS = [
    DiffEditRequest(photo(24, 16, seed=1), ["left 1.5"], seed=3),
    DiffEditRequest(photo(30, 21, seed=2), ["right 1"], "left 0.5"),
    DiffEditRequest(photo(24, 16, seed=3), ["right -1"], seed=8),
    DiffEditRequest(photo(30, 21, seed=4), ["left 1"], mask=mask(30, 21, box=(3, 2, 11, 9))),
    DiffEditRequest(photo(24, 16, seed=5), ["left 1.5", "right 1"]),
]
EMPTY = DiffEditRequest(photo(24, 16, seed=6), ["left 1"], "left 1")


def apart(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()


@pytest.mark.parametrize("crop", ["none", "auto"])
def test_each_is_edited_as_if_it_were_alone(crop):
    editor = DiffEdit(analytic_model(), **FAST, crop=crop)
    results = editor.edit_all([*REQUESTS[:2], EMPTY, *REQUESTS[2:]], negative="right 0.5")
    empty = results.pop(2)
    assert isinstance(empty, EmptyMask) and mentions(str(empty), "left 1")
    assert [tuple(values.shape) for values in empty.maps] == [(16, 24)] and not empty.maps[0].any()
    for request, result in zip(REQUESTS, results, strict=True):
        own = {} if request.seed is None else {"seed": request.seed}
        alone = editor(request.image, request.targets, request.source, mask=request.mask, negative="right 0.5", **own)
        assert isinstance(result, DiffEditResult) and result.settings == alone.settings
        assert len(result.images) == len(result.masks) == len(result.inversions) == len(request.targets)
        for name in ("images", "masks"):
            for one, other in zip(getattr(result, name), getattr(alone, name), strict=True):
                assert one.size == request.image.size and apart(one, other) <= (1 if name == "images" else 0)
        for one, other in zip(result.maps, alone.maps, strict=True):
            assert (one - other).abs().max() < 1e-4
        assert all(apart(image, request.image) > 8 for image in result.images)


def test_the_map_is_of_the_seed_of_its_own_picture():
    editor = DiffEdit(analytic_model(), **FAST)
    image = photo(24, 16, seed=1)
    same, other, again = editor.edit_all([DiffEditRequest(image, ["left 1.5"], seed=seed) for seed in (3, 4, 3)])
    assert (same.maps[0] == again.maps[0]).all() and (same.maps[0] != other.maps[0]).any()


def test_nothing_is_computed_twice_and_one_size_is_one_batch():
    """2 maps, the 4 steps up and the 4 down with guidance for each picture, in as many calls as for one."""
    pictures = [DiffEditRequest(photo(24, 16, seed=seed), ["left 1.5"]) for seed in range(3)]
    counts = []
    for requests in (pictures[:1], pictures):
        model = analytic_model()
        DiffEdit(model, **FAST).edit_all(requests)
        counts.append((model.unet.rows, len(model.unet.times)))
    (rows, calls), (all_rows, all_calls) = counts
    assert rows == 2 * 2 + 4 + 2 * 4 and (all_rows, all_calls) == (3 * rows, calls)


@pytest.mark.parametrize("targets", [[], [" "], ["left 1", ""]])
def test_an_empty_target_is_wrong_with_its_own_request_alone(targets):
    editor = DiffEdit(analytic_model(), **FAST)
    wrong, right = editor.edit_all([DiffEditRequest(photo(24, 16), targets), REQUESTS[0]])
    assert isinstance(wrong, UserError) and not isinstance(wrong, EmptyMask)
    assert_line(str(wrong), "prompt")
    assert isinstance(right, DiffEditResult)


def test_no_requests():
    assert DiffEdit(analytic_model(), **FAST).edit_all([]) == []
