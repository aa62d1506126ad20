import re

import pytest
import torch

from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.mask_inference import InferredMask
from ldm.presets import DiffEditSettings
from ldm.studies import box_masks
from ldm.studies.box_masks import compare_masks, in_cells, infer_masks, mask_table, summary
from ldm.studies.caption_edits import mask_figures
from ldm.toyworld.scenes import ExemplarScenes, collate
from tests.tiny import shipped_judge, tiny_model

INFERENCE = DiffEditSettings.read(n_maps=1)


def editor():
    return ExemplarEditor(tiny_model(), steps=1, sampler="ddim")


def scenes(n):
    data = ExemplarScenes(seed=3, length=n)
    return collate([data[i] for i in range(n)])


def test_a_cell_is_in_where_half_of_it_is_covered():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :2, :4] = 1  # half of the first cell
    mask[..., :2, 4:7] = 1  # less of the second
    found = in_cells(torch.zeros(1, 1, 2, 2), mask)
    assert found.latent.tolist() == [[[[1, 0], [0, 0]]]]
    assert torch.equal(found.mask, mask)


def test_a_mask_that_covers_half_of_no_cell_is_not_empty():
    mask = torch.zeros(2, 1, 8, 8)
    mask[0, ..., 3:5] = 1  # a quarter of each cell
    figures = mask_figures(in_cells(torch.zeros(2, 1, 2, 2), mask), mask)
    assert figures["no mask"].tolist() == [False, True]


def test_a_batch_is_inferred_as_one_scene_is():
    batch = scenes(2)
    found = infer_masks(editor(), batch, INFERENCE)
    assert not (found.mask * (1 - batch["mask"])).any()
    x0, y0, x1, y1 = box_masks.mask_box(batch["mask"][1:])
    picture = box_masks.to_pil(batch["image"][1])
    alone = editor().infer_mask(picture, (x0, y0, x1, y1), batch["exemplar"][1], INFERENCE)
    assert (alone.mask != found.mask[1:]).float().mean() < 0.01  # the map is the same but for rounding


def test_a_perfect_mask_beside_the_box(monkeypatch):
    batch = scenes(4)
    visible = batch["visible"]
    perfect = InferredMask(torch.rand(4, 1, 16, 16), torch.zeros(4, 1, 16, 16), visible)
    monkeypatch.setattr(box_masks, "infer_masks", lambda *_: in_cells(perfect.map, visible))
    shown, figures = compare_masks(editor(), shipped_judge(), batch, range(4), INFERENCE)
    assert [len(pictures) for pictures in shown] == [6] * 4
    assert {picture.size for pictures in shown for picture in pictures} == {(64, 64)}
    assert figures["inferred/iou"].tolist() == figures["inferred/pixel iou"].tolist() == [1] * 4
    share = visible.sum((1, 2, 3)) / batch["mask"].sum((1, 2, 3))
    torch.testing.assert_close(figures["inferred/share"], share)
    torch.testing.assert_close(figures["box/pixel iou"], share.double())  # the thing lies in its box
    assert figures["box/share"].tolist() == [1] * 4
    assert (figures["inferred/surroundings"] > figures["box/surroundings"]).all()
    assert figures["inferred/exact"].all() and figures["box/exact"].all()

    found = summary(figures)
    assert found["figures"]["inferred/iou"] == (1, 0)
    lines = mask_table({**found, "chance": {"class": 0.1, "colour": 0.125, "pattern": 0.25}}).splitlines()
    assert re.fullmatch(r"mask found in it +1\.000 ± 0\.000 +1\.000 ± 0\.000 +\d+\.\d ± \d+\.\d", lines[1])
    assert sum(line.startswith("the whole box") for line in lines) == 3


def test_every_figure_is_of_every_scene():
    _, figures = compare_masks(editor(), shipped_judge(), scenes(2), [1, 2], INFERENCE)
    assert {values.shape for values in figures.values()} == {(2,)}
    assert figures["inferred/share"].max() < 1
    assert figures["inferred/background"].mean() != pytest.approx(figures["box/background"].mean().item())
