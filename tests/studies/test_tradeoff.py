import math

import pytest
import torch

from ldm.editors.diffedit import DiffEdit
from ldm.studies.judging import join
from ldm.studies.tradeoff import (
    METHODS,
    TradeoffPoint,
    TradeoffStudy,
    edit_all_ways,
    lower,
    outside,
    plot_tradeoff,
    summarise,
    tradeoff_table,
    unchanged,
)
from ldm.toyworld.scenes import CaptionScenes, collate
from tests.tiny import shipped_judge
from tests.toyworld.models import tiny_caption_model

RATIOS = (0.5, 1.0)


@pytest.fixture
def editor():
    return DiffEdit(tiny_caption_model(), steps=4, n_maps=2)


@pytest.fixture
def batch():
    data = CaptionScenes(seed=3, length=2, change="colour")
    return collate([data[i] for i in range(2)])


def study(**points) -> TradeoffStudy:
    """Points (background, target) of DiffEdit and SDEdit, at ratios 0.1, 0.2 ..."""
    named = {
        (method, (i + 1) / 10): TradeoffPoint(*at, (0.5, 0.1), (0.25, 0.1))
        for method, row in points.items()
        for i, at in enumerate(row)
    }
    return TradeoffStudy(10, named, TradeoffPoint(1, 90, (0, 0), (0, 0)), 5.0)


def test_outside_a_box():
    where = outside(torch.tensor([[1, 2, 3, 6], [0, 0, 8, 1]]), 6, 8)
    assert where.shape == (2, 1, 6, 8)
    assert (1 - where).nonzero()[:, 0].bincount().tolist() == [8, 8]
    assert (where[0, 0, 2:6, 1:3] == 0).all() and (where[1, 0, 0] == 0).all()


def test_the_lowest_steps_of_an_inversion_are_a_shorter_inversion(editor, batch):
    whole = editor.invert(batch["image"], encode_ratio=1.0, steps=4)
    half = editor.invert(batch["image"], encode_ratio=0.5, steps=4)
    part = lower(whole, 2)
    assert torch.equal(part.timesteps, half.timesteps)
    for t in [0, *half.timesteps.tolist()]:
        torch.testing.assert_close(part.latents[t], half.latents[t])


def test_every_method_at_every_ratio_from_one_mask_and_one_inversion(editor, batch, monkeypatch):
    calls = {"infer_mask": [], "invert": [], "edit": []}

    def record(name):
        method = getattr(DiffEdit, name)

        def recorded(self, *args, **named):
            result = method(self, *args, **named)
            calls[name].append((args, result))
            return result

        monkeypatch.setattr(DiffEdit, name, recorded)

    for name in calls:
        record(name)
    found = dict(edit_all_ways(editor, shipped_judge(), batch, RATIOS, "caption", [7, 8]))
    ways = [(method, ratio) for method in METHODS for ratio in RATIOS]
    assert [*found] == ways
    ((_, mask),), ((_, inversion),) = calls["infer_mask"], calls["invert"]
    tops = {}
    for (method, ratio), ((start, where, target), _) in zip(ways, calls["edit"], strict=True):
        by_inversion, masked = METHODS[method]
        assert target == batch["target"] and len(start.timesteps) == 4 * ratio
        assert torch.equal(where, mask.latent if masked else torch.ones_like(mask.latent))
        top = tops[method, ratio] = start.latents[int(start.timesteps[0])]
        assert torch.equal(top, inversion.latents[int(start.timesteps[0])]) == by_inversion
        assert torch.equal(start.latents[0], inversion.latents[0])
    for ratio in RATIOS:
        assert torch.equal(tops["SDEdit", ratio], tops["masked, no inversion", ratio])
    assert all(figures["features"].shape == (2, 128) for figures in found.values())
    kept = unchanged(editor, shipped_judge(), batch)
    assert {*kept} == {"features", "background", "class", "colour", "pattern", "all"}

    second = {key: value[1:] for key, value in batch.items()}
    alone = dict(edit_all_ways(editor, shipped_judge(), second, RATIOS, "caption", [8]))
    assert [*alone] == ways
    for key, figures in alone.items():
        assert figures["background"].item() == pytest.approx(found[key]["background"][1].item(), abs=0.05)


def test_a_summary_of_known_figures():
    plot_tradeoff = torch.Generator().manual_seed(0)
    real = torch.randn(200, 8, generator=plot_tradeoff)
    answers = torch.tensor([True, True, True, False])
    figures = {
        "features": real[:4] + 3,
        "background": torch.tensor([20.0, 20.0, 20.0, 20.0]),
        "colour": answers,
        "all": ~answers,
    }
    both = join([figures, figures])
    found = summarise("colour", {("DiffEdit", 0.5): both}, both, real, real[:100])
    (point,) = found.points.values()
    assert point.background == pytest.approx(25.5)
    assert point.right == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 8))) and point.all_right[0] == 0.25
    assert point.target > 8 * 9 / 2 > found.floor > 0
    assert found.count == 100
    assert summarise("colour", {}, both, real, real).floor == pytest.approx(0, abs=1e-6)


def test_a_curve_dominates_where_it_is_nowhere_worse():
    found = study(DiffEdit=[(2, 30), (3, 20)], SDEdit=[(2, 40), (2.5, 25), (4, 20), (1, 80)])
    assert found.dominated("SDEdit") == {0.1: True, 0.2: False, 0.3: True, 0.4: False}


def test_table_and_picture(tmp_path):
    found = study(**{method: [(2 + i, 30), (3 + i, 20)] for i, method in enumerate(METHODS)})
    lines = tradeoff_table(found).splitlines()
    assert len(lines) == 2 + 1 + 2 * len(METHODS) + 1
    assert "| SDEdit | 0.2 | 6.00 | 20.00 | 50.0 ± 10.0 | 25.0 ± 10.0 |" in lines
    assert len({line.count("|") for line in lines}) == 1
    plot_tradeoff({"colour": found, "class": found}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert found.report()["methods"]["DiffEdit"]["0.1"]["background"] == 2
