"""ToyWorld on disk: the Open Images layout with the index of boxes, plus captions and attributes as JSON lines."""

import csv
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from PIL import Image
from tqdm import tqdm

from ldm.data.box_index import index_file
from ldm.data.open_images_csv import build_index, open_source
from ldm.toyworld.render import CLASSES, Scene, render_scene, scene_id
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing

COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
).split(",")
SPLITS = {"train": ("train_0", "oidv6-train"), "validation": ("validation", "validation"), "test": ("test", "test")}


def write_split(root: Path, split: str, count: int, seed: int, size: int = 64, workers: int | None = None) -> bool:
    """Draw scenes 0 .. count - 1 of a split; return False if the split is already complete.

    The split's captions are written last: a split that has them is complete, any other one is redrawn.

    Raises:
        UserError: the split exists with another seed, count or size.
    """
    folder, prefix = SPLITS[split]
    record = root / "annotations" / f"{split}-scenes.jsonl"
    settings = {"toyworld": split, "seed": seed, "count": count, "size": size}
    if record.exists():
        with open(record) as lines:
            found = json.loads(next(lines, "{}"))
        if found == settings:
            if not index_file(root, split).exists():
                build_index(open_source(root, split))
            return False
        different = ", ".join(
            f"{key} {found.get(key)}, not {settings[key]}" for key in settings if found.get(key) != settings[key]
        )
        raise UserError(f"{record}: found other scenes ({different}); delete {root} or choose another --out")
    pictures, partial_pictures = root / "images" / folder, root / "images" / f".{folder}.partial"
    try:
        for leftover in (pictures, partial_pictures):
            shutil.rmtree(leftover, ignore_errors=True)
        partial_pictures.mkdir(parents=True)
        record.parent.mkdir(parents=True, exist_ok=True)
        draw = partial(_draw, seed, split, size, partial_pictures)
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            scenes = list(tqdm(pool.imap(draw, range(count), chunksize=50), split, total=count, unit=" scenes"))
        partial_pictures.rename(pictures)
        boxes = (_box_rows(scene, size) for scene in scenes)
        with _text_file(root / "annotations" / f"{prefix}-annotations-bbox.csv") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *(row for rows in boxes for row in rows)])
        with _text_file(root / "annotations" / "class-descriptions-boxable.csv") as file:
            csv.writer(file, lineterminator="\n").writerows([_label(name), name.capitalize()] for name in CLASSES)
        build_index(open_source(root, split))
        with _text_file(record) as file:
            file.writelines(json.dumps(line) + "\n" for line in [settings, *scenes])
    except OSError as error:
        raise UserError(f"{root}: cannot be written ({reason(error)})") from error
    return True


def read_scenes(root: Path, split: str) -> list[dict]:
    """Read image_id, caption, background and objects (class, colour, pattern, caption, pixel box) of each scene."""
    record = Path(root) / "annotations" / f"{split}-scenes.jsonl"
    try:
        with open(record) as lines:
            next(lines)
            return [json.loads(line) for line in lines]
    except (OSError, StopIteration, ValueError) as error:
        raise UserError(
            f"{record}: not the captions of a ToyWorld; make one with ldm make-toyworld --out {root}"
        ) from error


def image_folder(root: Path, split: str) -> Path:
    """Return the folder of the split's pictures."""
    return Path(root) / "images" / SPLITS[split][0]


def describe(image_id: str, scene: Scene) -> dict:
    """Return the record of a scene as plain types."""
    things = [
        {
            "class": thing.cls,
            "colour": thing.colour,
            "pattern": thing.pattern,
            "caption": thing.caption,
            "box": thing.box,
        }
        for thing in scene.objects
    ]
    return {"image_id": image_id, "caption": scene.caption, "background": scene.background, "objects": things}


def _draw(seed: int, split: str, size: int, folder: Path, index: int) -> dict:
    number = scene_id(seed, split, index)
    scene, image_id = render_scene(number, size), f"{number:016x}"
    Image.fromarray(scene.image).save(folder / f"{image_id}.jpg", quality=97, subsampling=0)
    return describe(image_id, scene)


def _label(name: str) -> str:
    return f"/toyworld/{name}"


def _box_rows(scene: dict, size: int) -> Iterator[list]:
    for thing in scene["objects"]:
        x0, y0, x1, y1 = (f"{edge / size:.6f}" for edge in thing["box"])
        yield [scene["image_id"], "toyworld", _label(thing["class"]), 1, x0, x1, y0, y1, 0, 0, 0, 0, 0]


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        yield file
