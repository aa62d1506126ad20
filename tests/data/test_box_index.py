"""The index and the original's text files hold the same boxes, in the same order, at no memory to speak of."""

import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ldm.data.box_index import BoxFolder, BoxIndex, open_boxes, write_folders, write_index
from ldm.toyworld.files import read_scenes, write_split
from tests.refusals import assert_line, refused

SIZES = {"aa": (90, 60), "bb": (61, 97), "cc": (40, 200)}
BOXES = {
    "aa": [(0.1, 0.2, 0.5, 0.6)],
    "bb": [(0.25, 0.5, 0.75, 1.0), (0.0, 0.0, 0.3, 0.123456)],
    "cc": [(0.9, 0.1, 1.0, 0.4), (0.0, 0.0, 1.0, 0.8), (0.2, 0.2, 0.4, 0.4)],
}


@pytest.fixture
def root(tmp_path) -> Path:
    """Three pictures in two folders; bb lies on its side in the file, and says so."""
    for name, folder in (("aa", "train_0"), ("bb", "train_b"), ("cc", "train_0")):
        (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
        picture, exif = Image.new("RGB", SIZES[name]), Image.Exif()
        if name == "bb":
            exif[0x0112] = 6
        picture.save(tmp_path / "images" / folder / f"{name}.jpg", exif=exif)
    (tmp_path / "bbox").mkdir()
    boxes = np.array([box for name in sorted(BOXES) for box in BOXES[name]], np.float32)
    shard, start = np.array([0, 1, 0], np.int32), np.array([0, 1, 3, 6], np.int32)
    ids = [name.encode() for name in sorted(BOXES)]
    write_index(tmp_path / "bbox" / "train.arrow", ["train_0", "train_b"], ids, shard, start, boxes, {"rows": 6})
    return tmp_path


def test_boxes_are_whole_pixels_of_the_picture(root):
    index = open_boxes(root, "train")
    assert isinstance(index, BoxIndex) and len(index) == 3 and index.about == {"rows": 6}
    assert [index.image(i) for i in range(3)] == ["train_0/aa.jpg", "train_b/bb.jpg", "train_0/cc.jpg"]
    for i, name in enumerate(sorted(BOXES)):
        width, height = SIZES[name]
        expected = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in BOXES[name]]
        assert index.boxes(i, width, height) == [tuple(map(round, box)) for box in expected]
    assert all(type(edge) is int for edge in index.boxes(2, 10, 10)[0])


def test_the_original_text_files_hold_the_same(root):
    index = open_boxes(root, "train")
    assert write_folders(index, root) == []
    assert (root / "bbox" / "train_0" / "aa.txt").read_text() == "9 12 45 36\n"
    index.file.unlink()
    folder = open_boxes(root, "train")
    assert isinstance(folder, BoxFolder) and len(folder) == 3
    for i, (width, height) in enumerate([(90, 60), (97, 61), (40, 200)]):  # bb as a person sees it
        assert folder.image(i) == index.image(i)
        assert folder.boxes(i, width, height) == index.boxes(i, width, height)


def test_text_files_are_replaced_as_a_whole(root):
    index = open_boxes(root, "train")
    for name in ("train_0", ".train_b.partial"):
        (root / "bbox" / name).mkdir()
        (root / "bbox" / name / "old.txt").write_text("1 1 2 2\n")
    (root / "images" / "train_0" / "cc.jpg").write_bytes(b"no picture")
    (message,) = write_folders(index, root)
    assert_line(message, root / "images/train_0/cc.jpg")
    assert sorted(str(file.relative_to(root)) for file in (root / "bbox").rglob("*.txt")) == [
        "bbox/train_0/aa.txt",
        "bbox/train_b/bb.txt",
    ]
    shutil.rmtree(root / "bbox")
    (root / "bbox").write_text("")
    with refused(root / "bbox"):
        write_folders(index, root)


@pytest.mark.parametrize(
    "text", ["", "1 2 3\n", "1 2 3 4 5\n", "0.5 1 2 3\n", "5 5 5 9\n", "-1 0 5 5\n", "0 0 91 60\n"]
)
def test_text_that_is_no_box_of_the_picture_is_named(root, text):
    folder = root / "bbox" / "train_0"
    folder.mkdir()
    (folder / "aa.txt").write_text(f"0 0 90 60\n{text}\n" if text else "")
    with refused(folder / "aa.txt"):
        BoxFolder(root / "bbox", ["train_0"]).boxes(0, 90, 60)


def test_what_is_not_there_or_no_index_is_said_in_one_line(root):
    with refused("test.arrow", "read-bbox", "make-toyworld"):
        open_boxes(root, "test")
    with refused(root / "absent", "make-toyworld"):
        open_boxes(root / "absent", "train")
    (root / "bbox" / "test").mkdir()
    with refused("test", "read-bbox"):
        open_boxes(root, "test")
    file = root / "bbox" / "train.arrow"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"ImageID\n"):
        file.write_bytes(content)
        with refused(file, "read-bbox"):
            open_boxes(root, "train")
    other = pa.table({"x": [1]})
    with pa.ipc.new_file(str(file), other.schema) as writer:
        writer.write_table(other)
    with refused(file, "x"):
        open_boxes(root, "train")


def test_a_process_that_reads_needs_next_to_no_memory_of_its_own(tmp_path):
    """300 times less than the boxes take, by the allocators of Python and numpy and by Arrow's."""
    n, rng = 50_000, np.random.default_rng(0)
    ids = [f"{i:016x}".encode() for i in range(n)]
    boxes, start = rng.random((10 * n, 4), np.float32), np.arange(0, 10 * n + 1, 10, dtype=np.int32)
    write_index(tmp_path / "train.arrow", ["train_0"], ids, np.zeros(n, np.int32), start, boxes, {})
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        index = BoxIndex(tmp_path / "train.arrow")
        for i in range(0, n, 10):
            assert index.image(i) == f"train_0/{i:016x}.jpg" and len(index.boxes(i, 100, 100)) == 10
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < boxes.nbytes / 300 and pa.total_allocated_bytes() - arrow < boxes.nbytes / 300
    copy = pickle.dumps(index)  # as for a worker process that is not forked
    assert len(copy) < 1000 and pickle.loads(copy).boxes(7, 50, 60) == index.boxes(7, 50, 60)


def test_an_open_index_survives_the_next_run(root):
    index = open_boxes(root, "train")
    before = [index.boxes(i, 1000, 1000) for i in range(3)]
    nothing = np.zeros((1, 4), np.float32)
    write_index(index.file, ["x"], [b"x"], np.zeros(1, np.int32), np.array([0, 1], np.int32), nothing, {})
    assert [index.boxes(i, 1000, 1000) for i in range(3)] == before and len(open_boxes(root, "train")) == 1


def test_toyworld_comes_with_its_index(tmp_path):
    assert write_split(tmp_path, "validation", 6, seed=3, workers=1)
    file = tmp_path / "bbox" / "validation.arrow"
    content = file.read_bytes()
    index = open_boxes(tmp_path, "validation")
    scenes = {scene["image_id"]: scene["objects"] for scene in read_scenes(tmp_path, "validation")}
    assert [index.image(i) for i in range(6)] == [f"validation/{image_id}.jpg" for image_id in sorted(scenes)]
    for i, image_id in enumerate(sorted(scenes)):
        assert index.boxes(i, 64, 64) == [tuple(thing["box"]) for thing in scenes[image_id]]
    file.unlink()  # as in a folder that was drawn before there was an index
    assert not write_split(tmp_path, "validation", 6, seed=3, workers=1) and file.read_bytes() == content
