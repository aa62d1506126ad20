"""Manifests: what is wrong with them is said at once, and the rows that are right become items."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from torch.utils.data import DataLoader

from ldm.data.manifest import CaptionDataset, ManifestDataset, read_manifest, write_manifest
from ldm.data.recipe import Recipe, exemplar_tensor
from ldm.utils.clip import clip_normalise
from tests.refusals import assert_line, assert_mentions, refused
from tests.utils.pictures import mask, photo

SMALL = Recipe(size=32, exemplar_size=28, augment=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    for seed in range(3):
        photo(60, 40, seed).save(tmp_path / "photos" / f"{seed}.png")
    mask(60, 40, (10, 5, 30, 25)).save(tmp_path / "masks" / "1.png")
    return tmp_path


def write(folder: Path, *rows: dict | str) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


BOX = {"image": "photos/0.png", "box": [5, 6, 40, 30]}
MASK = {"image": "photos/1.png", "mask": "masks/1.png"}
EXEMPLAR = {"image": "photos/1.png", "box": [5.4, 6, 40, 30.2], "exemplar": "photos/2.png"}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_become_items(folder, suffix):
    file = folder / f"mine{suffix}"
    write_manifest(file, [BOX, MASK, EXEMPLAR])
    data = ManifestDataset(str(file), SMALL)
    box, masked, shown = (data[index] for index in range(3))
    assert [item["image_id"] for item in (box, masked, shown)] == ["photos/0.png", "photos/1.png", "photos/1.png"]
    assert {name: tuple(value.shape) for name, value in box.items() if name != "image_id"} == {
        "image": (3, 32, 32), "mask": (1, 32, 32), "exemplar": (3, 28, 28), "box": (4,)
    }  # fmt: skip
    picture, other = np.array(photo(60, 40, 1)), np.array(photo(60, 40, 2))
    hole = np.array(mask(60, 40, (10, 5, 30, 25)))
    expected = SMALL(picture, [], data.random(1), mask=hole)
    assert all(torch.equal(masked[name], expected[name]) for name in expected)
    expected = SMALL(picture, [(5, 6, 40, 30)], data.random(2), exemplar=other)
    assert all(torch.equal(shown[name], expected[name]) for name in expected)
    assert torch.equal(shown["exemplar"], clip_normalise(exemplar_tensor(other, 28)))
    assert not torch.equal(data[3]["image"], box["image"]) or not torch.equal(data[3]["mask"], box["mask"])
    batches = [list(DataLoader(data, batch_size=3, sampler=range(12), num_workers=n)) for n in (0, 2)]
    assert all(torch.equal(a[k], b[k]) for a, b in zip(*batches, strict=True) for k in ("image", "mask", "exemplar"))


def test_bad_rows_are_counted_by_reason_and_listed(folder, caplog):
    bad = [
        (("box", "mask"), [{"image": "photos/0.png"}]),
        (("box", "mask"), [BOX | MASK]),
        ("box",
         [BOX | {"box": box} for box in ([1, 2, 3], "1 2 3 4", [1, 2, float("nan"), 4], [True, 1, 2, 3])]),
        ("box", [BOX | {"box": [40, 6, 5, 30]}, BOX | {"box": [5, 6, 5.2, 30]}]),
        ("box", [BOX | {"box": [-3, 6, 5, 30]}]),
        ("image", [BOX | {"image": "photos/7.png"}, BOX | {"image": "nowhere/0.png"}]),
        ("mask", [MASK | {"mask": "masks/0.png"}]),
        ("exemplar", [EXEMPLAR | {"exemplar": "photos/2.jpg"}]),
        ("image", [{"box": [5, 6, 40, 30]}, BOX | {"image": ""}]),
        ("image", [BOX | {"image": 3}]),
        ("JSON", ["[1, 2]", '{"image": "photos/0.pn']),
    ]  # fmt: skip
    rows = [row for _, several in bad for row in several]
    file = write(folder, BOX, *rows, MASK | {"box": None})
    assert read_manifest(file, "hole")["image"].to_pylist() == ["photos/0.png", "photos/1.png"]
    number = 2
    for (wanted, several), record in zip(bad, caplog.records, strict=True):
        listed = ", ".join(str(number + k) for k in range(len(several)))
        assert_line(record.getMessage(), file, len(several), wanted, listed)
        number += len(several)
    caplog.clear()
    read_manifest(write(folder, *[{"image": "photos/0.png"}] * 30, BOX), "hole")
    assert_mentions(caplog.records[0].getMessage(), 30, "box", "mask", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...")


def test_long_manifests_are_read_piece_by_piece(folder, monkeypatch):
    monkeypatch.setattr("ldm.data.manifest.CHUNK", 4)
    rows = [BOX | {"box": [k, 0, 50, 30]} for k in range(10)]
    for count in (4, 8, 10):
        table = read_manifest(write(folder, *rows[:count]), "hole")
        assert [box[0] for box in table["box"].to_pylist()] == list(range(count))


def test_manifests_without_a_usable_row_and_other_files_are_refused(folder):
    with refused("mine.jsonl", 2, "box", "mask", 1, "image"):
        read_manifest(write(folder, {"image": "photos/0.png"}, {"image": "a"}, {"box": [1, 2, 3, 4]}), "hole")
    with refused("mine.jsonl"):
        read_manifest(write(folder), "hole")
    with refused("mine.jsonl", 2, "bbox", "box"):
        read_manifest(write(folder, BOX, {"image": "photos/0.png", "bbox": [1, 2, 3, 4]}), "hole")
    with refused("none.jsonl"):
        read_manifest(folder / "none.jsonl", "hole")
    with refused("0.png"):
        read_manifest(folder / "photos" / "0.png", "hole")
    (folder / "text.parquet").write_text("text")
    with refused("text.parquet"):
        read_manifest(folder / "text.parquet", "hole")
    parquet.write_table(pa.table({"image": ["a"], "masks": ["b"]}), folder / "other.parquet")
    with refused("other.parquet", "masks", "mask"):
        read_manifest(folder / "other.parquet", "hole")


def test_what_only_the_picture_tells_is_found_when_it_is_read(folder):
    """A box beyond the picture, a mask of another shape: replaced by other items, up to the set rate."""
    mask(40, 60).save(folder / "masks" / "turned.png")
    file = write(folder, BOX | {"box": [5, 6, 61, 30]}, MASK | {"mask": "masks/turned.png"}, MASK)
    data = ManifestDataset(str(file), SMALL, max_unreadable=0.9)
    assert {data[index]["image_id"] for index in range(6)} == {"photos/1.png"}
    with refused("photos/0.png", "5, 6, 61, 30", "60x40"):
        data.item(0, Random(0))
    with refused("turned.png", "40x60", "60x40"):
        data.item(1, Random(0))


def test_captioned_pictures(folder):
    rows = [{"image": f"photos/{k}.png", "caption": f"photo {k}"} for k in range(3)]
    data = CaptionDataset(str(write(folder, *rows, {"image": "photos/0.png"}, BOX)), size=20)
    assert len(data) == 3
    item = data[4]
    square = photo(60, 40, 1).resize((20, 20), 3, (10, 0, 50, 40))
    assert item["caption"] == "photo 1"
    torch.testing.assert_close(item["image"], torch.tensor(np.array(square)).permute(2, 0, 1) / 127.5 - 1)
    mirrored = CaptionDataset(str(folder / "mine.jsonl"), size=20, flip=True)
    flips = sum(torch.equal(mirrored[k]["image"], data[k]["image"].flip(-1)) for k in range(60))
    assert 18 < flips < 42
    with refused("mine.jsonl", 1, "caption"):
        CaptionDataset(str(write(folder, BOX)), size=20)
