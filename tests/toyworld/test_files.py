"""ToyWorld on disk is complete or absent, and is read back exactly."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.box_index import open_boxes
from ldm.data.images import ImageFolder, read_picture
from ldm.data.open_images import OpenImagesDataset
from ldm.data.recipe import Recipe
from ldm.toyworld.datasets import ToyCaptions
from ldm.toyworld.files import image_folder, read_scenes, write_split
from ldm.toyworld.render import CLASSES, VOCABULARY, render_scene
from ldm.utils.clip import CLIP_MEAN, CLIP_STD
from tests.processes import HANGS
from tests.refusals import assert_refused, refused

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_toyworld.py"


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=HANGS)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world") / "toyworld"
    counts = ("--train", "12", "--validation", "4", "--test", "3", "--workers", "1")
    done = run_script("--out", str(root), *counts)
    assert done.returncode == 0, done.stderr
    again = run_script("--out", str(root), *counts)
    assert again.returncode == 0 and again.stdout.count("complete already") == 3
    return root


def test_layout_and_content(world):
    for split, folder, count in (("train", "train_0", 12), ("validation", "validation", 4), ("test", "test", 3)):
        scenes = read_scenes(world, split)
        files = sorted((world / "images" / folder).iterdir())
        assert [file.stem for file in files] == sorted(scene["image_id"] for scene in scenes)
        assert len(files) == count and all(len(file.stem) == 16 and file.suffix == ".jpg" for file in files)
    scene = read_scenes(world, "train")[0]
    drawn = render_scene(int(scene["image_id"], 16))  # an id is its scene's seed
    stored = read_picture(world / "images" / "train_0" / f"{scene['image_id']}.jpg")
    assert scene["caption"] == drawn.caption
    assert [thing["box"] for thing in scene["objects"]] == [list(thing.box) for thing in drawn.objects]
    error = np.mean((stored.astype(float) - drawn.image) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    labels = (world / "annotations" / "class-descriptions-boxable.csv").read_text().splitlines()
    assert len(labels) == len(CLASSES) and labels[0] == "/toyworld/ball,Ball"
    header = (world / "annotations" / "oidv6-train-annotations-bbox.csv").read_text().splitlines()[0]
    assert header.startswith("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded")
    assert not [file for file in world.rglob("*partial*")]


def test_the_boxes_come_back_in_whole_pixels(world):
    expected = {
        scene["image_id"]: [tuple(thing["box"]) for thing in scene["objects"]] for scene in read_scenes(world, "train")
    }
    index = open_boxes(world, "train")
    assert {Path(index.image(i)).stem: index.boxes(i, 64, 64) for i in range(len(index))} == expected
    dataset = OpenImagesDataset(str(world), "train", Recipe(size=64, exemplar_size=32))
    assert len(dataset) == 12
    item = dataset[0]
    assert tuple(item["box"].tolist()) in expected[item["image_id"]]


def test_an_interrupted_run_is_done_afresh_and_another_world_is_refused(world, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(world, root)
    record = root / "annotations" / "test-scenes.jsonl"
    before = record.read_text()
    record.unlink()  # written last: without it the split counts as unfinished
    picture = next((root / "images" / "test").iterdir())
    picture.write_bytes(b"half")
    (root / "images" / ".test.partial").mkdir()
    assert write_split(root, "test", 3, seed=0, workers=1)
    assert record.read_text() == before and len(picture.read_bytes()) > 1000
    with refused("count", 3, 4):
        write_split(root, "test", 4, seed=0, workers=1)
    with refused(tmp_path, "make-toyworld"):
        read_scenes(tmp_path, "train")


def test_bad_arguments_are_refused_in_one_line(tmp_path):
    done = run_script("--out", str(tmp_path / "x"), "--train", "0")
    assert_refused(done, "--train", 0)
    (tmp_path / "file").write_text("")
    done = run_script("--out", str(tmp_path / "file"), "--train", "1", "--workers", "1")
    assert_refused(done, tmp_path / "file")


def test_captions_match_their_pixels(world):
    captions = ToyCaptions(str(world), "train", image_size=32, seed=3)
    scenes = {scene["image_id"]: scene for scene in read_scenes(world, "train")}
    whole = things = 0
    for epoch in range(20):
        for index, scene in enumerate(scenes.values()):
            item = captions[epoch * len(captions) + index]
            assert item["pixels"].shape == (3, 32, 32) and item["pixels"].dtype == torch.float32
            whole += item["caption"] == scene["caption"]
            things += item["caption"] in [thing["caption"] for thing in scene["objects"]]
    assert whole + things == 240 and 35 <= whole <= 85  # a quarter
    everything = ToyCaptions(str(world), "train", image_size=64, scenes=1.0)[0]
    picture = read_picture(image_folder(world, "train") / f"{next(iter(scenes))}.jpg")
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    expected = (torch.tensor(picture).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(everything["pixels"], expected, rtol=0, atol=1e-6)
    assert set(everything["caption"].split()) <= set(VOCABULARY)


def test_image_folder_finds_everything_below_and_flips_by_epoch(world):
    folder = ImageFolder(str(world), size=64, seed=1)
    assert len(folder) == 19
    plain = ImageFolder(str(world), size=64, flip=False)
    flipped = 0
    for epoch in range(6):
        for index in range(19):
            a, b = folder[epoch * 19 + index]["image"], plain[index]["image"]
            assert torch.equal(a, b) or torch.equal(a, b.flip(-1))
            flipped += torch.equal(a, b.flip(-1))
    assert 35 <= flipped <= 79
    assert plain[0]["image"].min() >= -1 and plain[0]["image"].max() <= 1
    assert ImageFolder(str(world), size=20)[0]["image"].shape == (3, 20, 20)
    with refused(world / "annotations"):
        ImageFolder(str(world / "annotations"), size=64)


def test_the_record_is_plain_json_lines(world):
    lines = (world / "annotations" / "validation-scenes.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"toyworld": "validation", "seed": 0, "count": 4, "size": 64}
    assert set(json.loads(lines[1])["objects"][0]) == {"class", "colour", "pattern", "caption", "box"}
