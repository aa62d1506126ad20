import json

import pytest
from PIL import Image

from ldm.editors.repaint import RePaint
from ldm.studies import repaint_study
from ldm.studies.hole_filling import PSNR
from ldm.studies.repaint_study import Point, RePaintStudy, Result, Way, cheapest, plot_repaint, repaint_table
from ldm.toyworld.scenes import HoleScenes
from tests.editors.test_repaint import pixel_model
from tests.refusals import refused

WALK = Way("ddpm", 4, 2, 2)
DISTANCES = {"feature distance": lambda a, b: (a - b).abs().mean((1, 2, 3))}


def study(file, batch=2, seed=3):
    editor = RePaint(pixel_model())
    return RePaintStudy(editor, DISTANCES, HoleScenes(seed, 5, "wide", 16), {"seed": seed}, file, batch)


@pytest.fixture
def made(monkeypatch):
    """The seeds of the batches that are filled."""
    seeds, fill = [], repaint_study.fill

    def noted(editor, settings, batch, own, callback):
        seeds.append(list(own))
        return fill(editor, settings, batch, own, callback)

    monkeypatch.setattr(repaint_study, "fill", noted)
    return seeds


def test_a_way_has_a_name_and_a_price():
    base = RePaint(pixel_model()).settings
    assert str(WALK) == "ddpm, 4 steps, jump 2, 2 times" and WALK.calls(base) == 6
    assert str(Way("ddim", 5, 3, 1, 0.5)) == "ddim eta 0.5, 5 steps" and Way("ddim", 5, 3, 1, 0.5).calls(base) == 5
    assert Way("ddpm", 250, 10, 10).calls(base) == 2410
    with refused("jump_length", 4):
        Way("ddpm", 4, 4, 2).calls(base)


def test_a_study_goes_on_where_it_stopped_and_grows(tmp_path, made):
    file = tmp_path / "study.json"
    first = study(file).result(WALK, 3)
    assert made == [[42, 43], [44]] and len(first) == 3 and first.exact == [True] * 3
    assert json.loads(file.read_text())["results"][str(WALK)]["figures"] == first.figures

    made.clear()
    assert study(file).result(WALK, 3) == first and study(file).result(WALK, 2) == first
    assert made == []
    more = study(file, batch=4).result(WALK, 5)
    assert made == [[45, 46]] and more.seconds > first.seconds
    whole = study(tmp_path / "whole.json", batch=5).result(WALK, 5)
    assert whole.figures.keys() == first.figures.keys() != set()
    for name, values in whole.figures.items():
        assert more.figures[name] == pytest.approx(values, rel=1e-2) and more.figures[name][:3] == first.figures[name]


def test_an_interrupted_way_has_lost_one_batch(tmp_path, made, monkeypatch):
    fill = repaint_study.fill

    def interrupted(editor, settings, batch, seeds, callback):
        if 44 in seeds:
            raise KeyboardInterrupt
        return fill(editor, settings, batch, seeds, callback)

    monkeypatch.setattr(repaint_study, "fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "study.json").result(WALK, 5)
    monkeypatch.setattr(repaint_study, "fill", fill)
    made.clear()
    study(tmp_path / "study.json").result(WALK, 5)
    assert made == [[44, 45], [46]]


def test_results_of_other_scenes_are_refused(tmp_path):
    study(tmp_path / "study.json").result(WALK, 1)
    with refused(tmp_path / "study.json"):
        study(tmp_path / "study.json", seed=4)


def test_a_point_is_compared_on_the_scenes_of_both(tmp_path):
    full = Result({"feature distance": [0.1, 0.3], PSNR: [20.0, 22.0]}, [True, True], 8.0)
    here = study(tmp_path / "study.json")
    here.results[str(WALK)] = Result({"feature distance": [0.2, 0.45, 0.7], PSNR: [19.0, 23.0, 30.0]}, [True] * 3, 6.0)
    point = here.point(WALK, 3, full)
    assert (point.calls, point.count, point.seconds, point.exact) == (6, 3, 2.0, True)
    assert point.figures["feature distance"][0] == pytest.approx(0.45)
    assert point.difference["feature distance"] == pytest.approx((0.125, 0.025))
    assert point.difference[PSNR] == pytest.approx((0, 1))
    assert not point.as_good  # 5 standard errors further


def made_up(calls, distance, psnr=0.0, way=WALK):
    """A point so many standard errors away from the full schedule."""
    difference = {"feature distance": (distance / 100, 0.01), PSNR: (psnr, 1.0)}
    figures = {"feature distance": (0.1 + distance / 100, 0.01), PSNR: (20 + psnr, 1.0)}
    return Point(way, calls, 5, figures, difference, True, 1.5)


def test_the_cheapest_is_as_good_as_the_full_schedule_at_a_tenth_of_its_calls():
    full = made_up(1000, 0)
    worse, blurred = made_up(50, 2.1), made_up(60, 0, -2.1)
    good, better, dear = made_up(100, 1.9, -1.9), made_up(90, -5, 5), made_up(101, 0)
    assert [point.as_good for point in (worse, blurred, good, better, dear)] == [False, False, True, True, True]
    assert cheapest([dear, worse, good, blurred], full) is good
    assert cheapest([good, better], full) is better
    assert cheapest([worse, blurred, dear], full) is None


def test_points_as_a_table_and_as_a_picture(tmp_path):
    full = made_up(1000, 0, way=Way("ddpm", 250, 10, 10))
    curves = {"slower": [made_up(50, 3)], "fast": [made_up(20, 1, -1.0), made_up(30, 1, way=Way("ddim", 5))]}
    lines = repaint_table(curves, full).splitlines()
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert lines[3].startswith(
        f"| fast | {WALK} | 20 | 2.0 | 0.1100 ± 0.0100 | 19.00 ± 1.00 | +0.0100 ± 0.0100 | -1.00"
    )
    assert "| yes | 1.50 | 5 |" in lines[3] and "| no |" in lines[2]
    plot_repaint(curves, full, "wide masks", tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size == (1040, 400)
