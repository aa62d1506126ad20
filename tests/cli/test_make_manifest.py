"""scripts/make_manifest.py and scripts/preview.py as a person runs them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import HANGS
from tests.refusals import assert_refused
from tests.utils.pictures import mask, photo

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / f"{script}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        photo(64, 48).save(folder / f"{name}.png")
    mask(64, 48).save(folder / "a_mask.png")
    return folder


def test_a_folder_becomes_a_manifest_and_a_sheet(images, tmp_path):
    out, sheet = tmp_path / "new" / "mine.jsonl", tmp_path / "sheet.png"
    done = run("make_manifest", "--images", images, "--out", out, "--preview", sheet, "--count", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{out}: 1 rows",
        f"  left out: 1 pictures without a mask ({images}/b.png)",
        f"{sheet}: what training would see at 512 pixels",
    ]
    assert json.loads(out.read_text()) == {"image": "../photos/a.png", "mask": "../photos/a_mask.png"}
    assert Image.open(sheet).width > 4 * 256
    config = tmp_path / "config.yaml"
    node = {"target": "ldm.data.manifest.ManifestDataset", "params": {"file": str(out), "recipe": {
        "target": "ldm.data.recipe.Recipe", "params": {"size": 64}}}}  # fmt: skip
    config.write_text(json.dumps({"data": {"params": {"train": node}}}))
    again = tmp_path / "again.png"
    done = run("preview", "--base", config, "--out", again, "data.params.train.params.recipe.params.augment=false")
    assert done.returncode == 0 and done.stdout == f"row 1: ../photos/a.png\n{again}\n", done.stderr
    assert np.array(Image.open(again)).shape == np.array(Image.open(sheet)).shape


def test_bad_arguments_are_refused_in_one_line(images, tmp_path):
    bad = [
        (("mine.csv", ".jsonl", ".parquet"), ("--out", tmp_path / "mine.csv")),
        (("--masks", "--exemplars"), ("--out", tmp_path / "a.jsonl", "--coco", "x.json", "--masks", images)),
        ("x.json", ("--out", tmp_path / "a.jsonl", "--coco", "x.json")),
        (tmp_path / "masks", ("--out", tmp_path / "a.jsonl", "--masks", tmp_path / "masks")),
    ]
    for wanted, arguments in bad:
        done = run("make_manifest", "--images", images, *arguments)
        assert_refused(done, wanted)
    (images / "a_mask.png").unlink()
    done = run("make_manifest", "--images", images, "--out", tmp_path / "a.jsonl")
    assert_refused(done, images, 2, f"{images}/a.png")
    assert not (tmp_path / "a.jsonl").exists()
