"""RePaint's tables with tiny networks: six masks, drawn or given, with classes and without."""

import csv

import numpy as np
import pytest
from PIL import Image

from ldm.config import build, load_config
from ldm.utils.holes import PAPER
from ldm.utils.png import read_settings
from tests.benchmark.conftest import MISSING
from tests.benchmark.measuring import measure, ours, papers
from tests.cli.pixel_models import write_models
from tests.refusals import assert_line, refused
from tests.utils.pictures import photo

COUNT, SIDE = 3, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write_models(tmp_path_factory.mktemp("repaint"))
    (root / "faces" / "image").mkdir(parents=True)
    for k in range(COUNT):
        photo(SIDE, SIDE, seed=k).save(root / "faces" / "image" / f"{k}.png")
    with open(root / "things.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "class_id"), *((f"faces/image/{k}.png", k) for k in range(COUNT))])
    return root


@pytest.fixture(scope="module")
def config(folder):
    """The shipped config, with two tables of tiny networks and the shortest walks."""
    config = load_config("benchmark/repaint")
    weights = {name: str(folder / f"{name}.safetensors") for name in ("pixel", "classes", "classifier")}
    faces = {"jobs": folder / "faces", "model": folder / "pixel.yaml", "checkpoint": weights["pixel"]}
    things = {"jobs": folder / "things.csv", "model": folder / "classes.yaml", "checkpoint": weights["classes"]}
    config.params.pictures = {
        "CelebA-HQ": {key: str(value) for key, value in faces.items()},
        "things": {key: str(value) for key, value in things.items()},
    }
    config.params.rows = {"short": {"edit": "fast", "steps": 2, "jump_length": 1, "jump_n_sample": 1}}
    config.params.count = COUNT
    return config


def test_the_whole_benchmark(config, folder, tmp_path):
    problems, report = measure(config, tmp_path)
    assert problems == [] and report["partial"] is None
    rows = ours(report)
    assert list(rows) == ["CelebA-HQ: here, short", "things: here, short"]
    for values in rows.values():
        assert list(values) == list(PAPER)
        assert all(value["n"] == COUNT and value["value"] > 0 for value in values.values())
    assert papers(report)["CelebA-HQ: RePaint"]["expand"] == 0.435
    assert not any(name.startswith("things") for name in papers(report))
    mean = rows["CelebA-HQ: here, short"]["half"]["value"]
    pairs = [(tmp_path / "CelebA-HQ/short/half/results", folder / "faces/image")]
    by_hand = [
        np.abs(np.subtract(*(np.asarray(Image.open(at / f"{k}.png"), float) for at in pair))).mean() / 127.5
        for pair in pairs
        for k in range(COUNT)
    ]
    assert mean == pytest.approx(np.mean(by_hand), rel=1e-4)
    held = read_settings(tmp_path / "things" / "short" / "wide" / "results" / "2.png")
    assert (held["class_id"], held["seed"]) == (2, 44)
    of_masks = report["about"]["masks"]
    assert measure(config, tmp_path / "other", seed=7)[1]["about"]["masks"] != of_masks
    assert measure(config, tmp_path)[1]["about"]["masks"] == of_masks  # hashes


def test_a_wrong_key_of_a_table_is_named(config):
    config = config.copy()
    config.params.pictures.things.jobz = config.params.pictures.things.pop("jobs")
    with refused("pictures.things", "jobz", "jobs"):
        build(config)


def test_given_masks_are_the_originals(config, tmp_path):
    given = tmp_path / "given"
    for name in ("thick", "thin", "nn2", "ev2li", "genhalf", "ex64"):
        (given / name).mkdir(parents=True)
        for k in range(COUNT):
            known = np.full((SIDE, SIDE), 255, np.uint8)  # white = known
            known[2 : 6 + k] = 0
            Image.fromarray(known).save(given / name / f"{k:06d}.png")
    problems, _ = measure(config, tmp_path / "out", masks=str(given))
    assert problems == []
    hole = np.asarray(Image.open(tmp_path / "out/masks/CelebA-HQ/half/1.png"))
    assert hole[2:7].min() == 255 and hole[:2].max() == hole[7:].max() == 0  # white = repaint

    (given / "ex64" / "000002.png").unlink()
    problems, report = measure(config, tmp_path / "fewer", masks=str(given))
    assert [line.partition(":")[0] for line in problems] == ["CelebA-HQ", "things"]
    assert "found 2 masks, expected 3, one for each picture" in problems[0]
    assert "expand" not in ours(report)["things: here, short"]


def test_a_table_that_lacks_something_does_not_stop_the_others(config, folder, tmp_path):
    config = config.copy()
    config.params.pictures["CelebA-HQ"].checkpoint = str(folder / "no.pt")
    problems, report = measure(config, tmp_path)
    assert len(problems) == 1 and "no.pt" in problems[0]
    assert list(ours(report)) == ["things: here, short"]
    assert "CelebA-HQ: LaMa" in papers(report)
    assert report["partial"]


def test_wrong_lines_of_a_table_and_a_picture_of_another_size(config, folder, tmp_path):
    table = folder / "wrong.csv"
    table.write_text("image,class_id\nfaces/image/0.png,1\nfaces/image/no.png,1\n", encoding="utf-8")
    config = config.copy()
    config.params.pictures = {"things": {**config.params.pictures.things, "jobs": str(table)}}
    problems, report = measure(config, tmp_path)
    assert len(problems) == 1 and "wrong.csv line 3" in problems[0]
    assert report["partial"].startswith("things, short, wide: 1 of 3 pictures, and 5 more")

    photo(20, 16).save(folder / "large.png")
    table.write_text("image,class_id\nno.png,1\nlarge.png,1\nfaces/image/2.png,1\n", encoding="utf-8")
    problems, _ = measure(config, tmp_path / "large")
    assert len(problems) == 2 and "wrong.csv line 2" in problems[0]
    assert problems[1].endswith("large.png: is 20x16, expected 16x16") and "wrong.csv line 3" in problems[1]
    held = read_settings(tmp_path / "large" / "things" / "short" / "wide" / "results" / "2.png")
    assert held["seed"] == 44  # as if nothing were wrong with the others


def test_without_the_weights_of_lpips_the_pictures_are_made(config, tmp_path):
    problems, report = measure(config, tmp_path, lpips=MISSING)
    (problem,) = problems
    assert_line(problem, "lpips_alex", MISSING)
    assert ours(report)["things: here, short"] == {}
    assert len(list((tmp_path / "things" / "short" / "half" / "results").iterdir())) == COUNT
