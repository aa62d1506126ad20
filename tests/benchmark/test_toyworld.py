"""The benchmark on ToyWorld: what pastes score, what a change shows, and a small run from end to end."""

import json

import pytest
import torch

from ldm.benchmark.run import RunContext, run_benchmark
from ldm.benchmark.toyworld import DECODED, ToyWorld
from ldm.benchmark.toyworld_figures import Features, Scenes, figures
from ldm.benchmark.toyworld_statistics import Found, difference, estimates, statistics
from ldm.checkpoints.open import load
from ldm.evaluation.extractors import open_extractor
from ldm.evaluation.frechet import fit, frechet
from ldm.presets import EditSettings
from ldm.studies.judging import HEADS
from ldm.toyworld.render import scene_id
from ldm.utils.image import to_pil
from ldm.utils.processes import Share
from tests.refusals import assert_line, refused

COUNT = 6


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes(seed=3, count=COUNT)


@pytest.fixture(scope="module")
def measured(scenes):
    judge, clip = load("toyworld_judge", device="cpu", root="judge"), open_extractor("toyworld_clip")

    def measure(pictures, **settings):
        return figures(scenes, pictures, judge, clip, EditSettings.read(**settings))

    return measure


def test_another_thing_of_the_kind_belongs_to_each_exemplar(scenes):
    for thing, other in zip(scenes.things, scenes.others, strict=True):
        assert thing.visible.sum() > 20 and other.visible.sum() > 20
        assert thing.pixels.shape != other.pixels.shape or not torch.equal(thing.pixels, other.pixels)
        colours = [(t.pixels * t.visible).sum((1, 2)) / t.visible.sum() for t in (thing, other)]
        assert (colours[0] - colours[1]).abs().max() < 0.5


def test_a_pasted_exemplar_has_all_that_it_shows(scenes, measured):
    pictures, features, values = measured(scenes.pastes(), **DECODED)
    assert len(pictures) == len(features.whole) == len(features.holes) == COUNT
    assert all(values[f"edit/{head}"].float().mean() > 0.8 for head in (*HEADS, "all"))
    assert values["clip score"].min() > 95
    assert values["pixels"].mean() > 0.05 and values["pose"].mean() > 0.02
    assert values["background"].isinf().all() and values["exact"].all()


def test_the_scene_itself_is_no_edit(scenes, measured):
    _, _, values = measured([item["image"] for item in scenes.items])
    assert values["edit/all"].sum() == 0 and values["clip score"].mean() < 80
    assert values["pixels"].mean() < 0.05


def test_pictures_are_laid_into_their_scenes_before_they_are_judged(scenes, measured):
    grey = [torch.zeros(3, 64, 64)] * COUNT
    pictures, _, values = measured(grey)
    assert values["exact"].all() and (values["background"] < 20).all()
    for picture, item in zip(pictures, scenes.items, strict=True):
        assert picture.getpixel((0, 0)) == to_pil(item["image"]).getpixel((0, 0))


def test_columns_are_what_their_names_say():
    g = torch.Generator().manual_seed(0)
    real = Features(torch.randn(50, 3, generator=g), torch.randn(50, 3, generator=g))
    row = Features(real.holes[:20] + 1, real.whole[:20])
    answers = torch.arange(20) < 15
    values = {f"edit/{head}": answers for head in (*HEADS, "all")}
    values |= {"blob": answers, "quality": torch.full((20,), 70.0), "clip score": torch.linspace(0, 19, 20)}
    values |= {"pose": torch.full((20,), 0.1), "pixels": torch.full((20,), 0.3)}
    values |= {"background": torch.full((20,), 30.0)}
    columns = statistics(real, {"pose": torch.full((20,), 0.2), "pixels": torch.full((20,), 0.4)})
    found = {key: estimate.value for key, estimate in estimates(Found(values, row, []), columns).items()}
    assert found["fid"] == pytest.approx(frechet(*fit(row.holes), *fit(real.holes)))
    assert found["fid_whole"] == pytest.approx(frechet(*fit(row.whole), *fit(real.whole)))
    told = {"quality": 70, "clip": 9.5, "class": 75, "all": 75, "blob": 75, "pose": 50, "pixels": 75, "background": 30}
    assert {key: found[key] for key in told} == pytest.approx(told)

    worse = Found({**values, "clip score": values["clip score"] - 2}, row, [])
    gap = difference(columns, worse, Found(values, row, []), "clip")
    assert (gap.value, gap.low, gap.high) == pytest.approx((-2, -2, -2))  # scene by scene: it does not vary
    assert "blob" not in estimates(Found({"quality": values["quality"]}, row, []), columns)


def test_no_training_set_holds_a_scene_of_the_benchmark():
    fresh = {scene_id(1000, split, i) for split in ("cross", "reference") for i in range(8500)}
    trained = {scene_id(0, "train", i) for i in range(24000)}
    assert len(fresh) == 17000 and not fresh & trained


def small(rows, **changes) -> ToyWorld:
    return ToyWorld(
        "A trial",
        rows,
        **{"count": 3, "seed": 3, "references": 140, "quality": {"components": 1, "scale": 200.0}, **changes},
    )


def test_a_run_from_end_to_end(tmp_path, capsys):
    rows = [
        {"key": "five", "name": "guidance 5", "model": "toyworld", "settings": {"steps": 4}},
        {"key": "one", "name": "guidance 1", "model": "toyworld", "settings": {"steps": 4, "guidance_scale": 1.0}},
        {"key": "absent", "name": "not trained", "model": "logs/none/config.yaml"},
    ]
    claims = [{"name": "+ guidance", "row": "five", "against": "one", "claims": {"clip": "rises"}}]
    benchmark = small(rows, directions=claims)
    work = RunContext(tmp_path, None, 2, torch.device("cpu"), Share())
    paths, problems = run_benchmark(benchmark, work, {})
    for problem, wanted in zip(problems, (("not trained", "logs/none/config.yaml"), ("FID", 3, 128)), strict=True):
        assert_line(problem, wanted)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == [
        "other scenes, as drawn", "the exemplar pasted", "guidance 5", "guidance 1"
    ]  # fmt: skip
    assert "without not trained" in report["partial"]
    assert report["about"]["directions"].keys() == {"+ guidance"}
    assert report["about"]["runs"].keys() == {"five/box", "five/blob", "one/box", "one/blob"}
    assert report["about"]["this run"]["pictures made"] == 12
    assert [path.name for path in paths] == ["report.md", "report.json", "figures.png", "examples.png"]
    for plot in ("figures.png", "examples.png"):
        assert (tmp_path / plot).stat().st_size > 10_000

    run_benchmark(benchmark, work, {})
    again = json.loads((tmp_path / "report.json").read_text())
    assert again["about"]["this run"]["pictures made"] == 0
    assert again["rows"] == report["rows"]


def test_blob_shaped_holes_may_be_of_more_scenes(tmp_path):
    row = {"key": "five", "name": "guidance 5", "model": "toyworld", "settings": {"steps": 2}}
    run_benchmark(small([row], count=2, blobs=4), RunContext(tmp_path, None, 2, torch.device("cpu"), Share()), {})
    assert [len([*(tmp_path / "five" / hole / "results").iterdir()]) for hole in ("box", "blob")] == [2, 4]
    values = json.loads((tmp_path / "report.json").read_text())["rows"][-1]["values"]
    assert (values["all"]["n"], values["blob"]["n"]) == (2, 4)


def test_a_limit_makes_the_report_partial(tmp_path):
    rows = [{"key": "five", "name": "guidance 5", "model": "toyworld", "settings": {"steps": 2}}]
    run_benchmark(small(rows), RunContext(tmp_path, 2, 2, torch.device("cpu"), Share()), {})
    assert json.loads((tmp_path / "report.json").read_text())["partial"] == "2 of 3 scenes"


@pytest.mark.parametrize(
    "row, wanted",
    [
        ({"holez": ["box"]}, ("rows[0]", "holez", "holes")),
        ({"holes": ["blob"]}, ("five", "holes", "blob", "box")),
    ],
)
def test_a_row_that_is_wrong_is_refused_before_anything_is_made(row, wanted):
    with refused(wanted):
        small([{"key": "five", "name": "guidance 5", "model": "toyworld", **row}])


def test_a_row_without_a_model_is_refused():
    with refused("rows[0]", "model"):
        small([{"key": "five", "name": "guidance 5"}])
