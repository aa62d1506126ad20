"""scripts/repaint.py with a list of jobs, from the command line to its files."""

import json

import numpy as np
import pytest
from PIL import Image

from ldm.utils.holes import hole_mask
from ldm.utils.png import read_settings
from tests.cli.outputs import pixels, written
from tests.cli.test_repaint import models, repaint  # noqa: F401  (fixtures)
from tests.refusals import assert_mentions, assert_refused, mentions
from tests.utils.pictures import mask, photo

SIZES = [(20, 14), (16, 16), (20, 14)]


@pytest.fixture
def fill(repaint, tmp_path):  # noqa: F811
    """Run the script with a list of these jobs; pictures 0 to 2 and their masks are beside it."""
    folder = tmp_path / "in"
    for k, size in enumerate(SIZES):
        photo(*size, seed=k).save(folder / f"{k}.png")
        mask(*size).save(folder / f"{k}_mask.png")

    def run(*jobs: dict, **flags: object) -> tuple[int, str, str]:
        (folder / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
        return repaint(**{"jobs": folder / "jobs.jsonl", "image": None, "mask_path": None, **flags})

    return run


def job(k: int, **more: object) -> dict:
    return {"image": f"{k}.png", "mask": f"{k}_mask.png", **more}


JOBS = (job(0, seed=5), job(1, name="second"), job(2))


def test_each_is_as_its_single_run(fill, repaint, tmp_path):  # noqa: F811
    code, out, err = fill(*JOBS, precision="full")
    assert (code, err) == (0, "")
    assert out.startswith("3 jobs, ddpm, 4 steps, jump length 2, resampling 2: ")
    assert written(tmp_path / "out") == {"run.json", *(f"results/{name}.png" for name in ("0", "second", "2"))}
    for k, name, seed in [(0, "0", 5), (1, "second", 3), (2, "2", 3)]:
        given = {"image": tmp_path / f"in/{k}.png", "mask_path": tmp_path / f"in/{k}_mask.png", "seed": seed}
        assert repaint(outdir=tmp_path / name, **given)[0] == 0
        one, other = tmp_path / f"out/results/{name}.png", tmp_path / name / f"results/{k}_{seed}.png"
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
        hole, scene = np.asarray(mask(*SIZES[k])) > 0, np.asarray(photo(*SIZES[k], seed=k))
        assert ((pixels(one) != scene).any(-1) <= hole).all() and (pixels(one) != scene).any()
    assert read_settings(tmp_path / "out/results/0.png")["seed"] == 5


def test_it_goes_on_where_it_stopped(fill, tmp_path):
    assert fill(*JOBS)[0] == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "out/results").iterdir()}
    lost = tmp_path / "out/results/2.png"
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in whole if path != lost}
    assert fill(*JOBS)[0] == 0
    assert {path: path.read_bytes() for path in whole} == whole
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())


def test_what_is_wrong_is_told_with_its_line_and_the_others_are_made(fill, tmp_path):
    Image.new("L", SIZES[0], 255).save(tmp_path / "in/white.png")
    wrong = [
        {"image": "0.png"},
        job(0, name="white", mask="white.png"),
        job(0, name="other", mask="1_mask.png"),
        job(0, name="class", class_id=1),
        job(0, sed=1),
    ]
    code, out, err = fill(JOBS[0], *wrong, JOBS[1])
    assert code == 4
    assert written(tmp_path / "out") == {"run.json", "results/0.png", "results/second.png"}
    for line, wanted in [
        (2, "mask"),
        (3, "mask"),
        (4, "1_mask.png"),
        (5, ("class_id", 1)),
        (6, "sed"),
    ]:
        (told,) = [told for told in err.splitlines() if mentions(told, f"jobs.jsonl line {line}")]
        assert_mentions(told, wanted)
    assert err.splitlines()[-1].startswith("error: ") and "Traceback" not in err


@pytest.mark.parametrize("mask_seed", [None, 7])
def test_holes_of_a_kind(fill, tmp_path, mask_seed):
    """Drawn of each job's own seed, or one for all; a job that has a mask keeps it."""
    jobs = {"image": "0.png", "seed": 5}, {"image": "1.png"}, job(2)
    assert fill(*jobs, mask_type="wide", mask_seed=mask_seed, composite="paste")[0] == 0
    holes = [
        hole_mask("wide", SIZES[k], seed if mask_seed is None else mask_seed)[0, 0] > 0 for k, seed in ((0, 5), (1, 3))
    ]
    for k, hole in enumerate([*(hole.numpy() for hole in holes), np.asarray(mask(*SIZES[2])) > 0]):
        changed = (pixels(tmp_path / f"out/results/{k}.png") != pixels(tmp_path / f"in/{k}.png")).any(-1)
        assert not changed[~hole].any() and changed[hole].mean() > 0.9


def test_classes_and_a_classifier(fill, tmp_path, models):  # noqa: F811
    guide = {"classifier": models / "classifier.safetensors", "classifier_config": models / "classifier.yaml"}
    jobs = [job(1, name="own", class_id=2), job(1, name="flag")]
    assert fill(*jobs, model="classes", class_id=4, **guide)[0] == 0
    assert [read_settings(tmp_path / f"out/results/{name}.png")["class_id"] for name in ("own", "flag")] == [2, 4]
    assert (pixels(tmp_path / "out/results/own.png") != pixels(tmp_path / "out/results/flag.png")).any()
    assert_refused(fill(*jobs, model="classes", class_id=4), "classifier", stdout=True)  # without the classifier


def test_inverted_masks(fill, repaint, tmp_path):  # noqa: F811
    (tmp_path / "in/jobs.jsonl").write_text(json.dumps(job(0)))
    assert repaint("--invert_mask", jobs=tmp_path / "in/jobs.jsonl", image=None, mask_path=None)[0] == 0
    changed = (pixels(tmp_path / "out/results/0.png") != np.asarray(photo(*SIZES[0], seed=0))).any(-1)
    assert not changed[np.asarray(mask(*SIZES[0])) > 0].any() and changed.any()


@pytest.mark.parametrize(
    "flags, wanted",
    [
        ({"image": "0.png"}, ("--image", "--jobs")),
        ({"n_samples": 2}, ("--n_samples", "--jobs")),
        ({"mask_seed": 2}, ("--mask_seed", "--mask_type")),
        ({"mask_type": "round"}, ("round", "wide")),
        ({"steps": 0}, ("steps", 0)),
        ({"jobs": "none.jsonl"}, "none.jsonl"),
    ],
)
def test_wrong_flags(fill, tmp_path, flags, wanted):
    assert_refused(fill(*JOBS, **flags), wanted)
    assert not (tmp_path / "out").exists()
