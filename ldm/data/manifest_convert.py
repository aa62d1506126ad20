"""Manifests made from COCO annotations, or from a folder of pictures and a folder of masks."""

import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ldm.data.crops import AREA
from ldm.data.images import SUFFIXES
from ldm.utils.errors import UserError, reason

MASK_SUFFIX = "_mask"

Rows = list[dict[str, Any]]
Dropped = dict[str, list[str]]  # reason -> names of the dropped items


def from_coco(annotations: Path, images: Path, folder: Path) -> tuple[Rows, Dropped]:
    """Return a row for each box of a COCO instances file that the paper's rule keeps (0.02 to 0.8 of the picture).

    A box that extends beyond the picture by less than a pixel is clipped to it.

    Args:
        annotations: JSON with the lists `images` (id, file_name, width, height) and `annotations` (image_id, bbox as
            x, y, width, height in pixels, iscrowd).
        images: folder that `file_name` is relative to.
        folder: where the manifest will lie; its paths are relative to it.

    Returns:
        the rows in the order of the annotations, and the dropped items by reason.

    Raises:
        UserError: the file is not such JSON.
    """
    content = _read_coco(annotations)
    pictures = {picture.get("id"): picture for picture in content["images"] if isinstance(picture, dict)}
    there = {path.relative_to(images).as_posix() for path in images.rglob("*")}
    rows, dropped = [], defaultdict(list)
    for annotation in tqdm(content["annotations"], annotations.name, unit=" boxes", delay=2):
        try:
            picture = pictures.get(annotation["image_id"])
            box, reason = _coco_box(annotation, picture)
            if reason is None and picture["file_name"] not in there:
                reason = "belong to a picture that is not on disk"
        except (KeyError, TypeError, ValueError):
            reason = "lack a number or a name"
        if reason:
            dropped[f"boxes that {reason}"].append(f"annotation {annotation.get('id', 'without id')}")
        else:
            rows.append({"image": _relative(images / picture["file_name"], folder), "box": box})
    return rows, dropped


def _coco_box(annotation: dict, picture: dict | None) -> tuple[list[float], str | None]:
    """Return x0, y0, x1, y1 clipped to the picture, and the first rule that the annotation breaks."""
    if picture is None:
        return [], "belong to a picture that is not listed"
    if annotation.get("iscrowd"):
        return [], "mark a crowd"
    width, height = float(picture["width"]), float(picture["height"])
    x, y, w, h = map(float, annotation["bbox"])
    if not all(map(math.isfinite, (x, y, w, h, width, height))):
        return [], "lack a number or a name"
    if w <= 0 or h <= 0:
        return [], "are empty or inverted"
    if min(x, y) <= -1 or x + w >= width + 1 or y + h >= height + 1:
        return [], "extend beyond the picture"
    box = [max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)]
    area = (box[2] - box[0]) * (box[3] - box[1]) / (width * height)
    if not AREA[0] <= area <= AREA[1]:
        return [], f"cover less than {AREA[0]} or more than {AREA[1]} of the picture"
    return [round(edge, 2) for edge in box], None


def _read_coco(file: Path) -> dict[str, list]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        message = reason(error)
        raise UserError(f"{file}: not readable as COCO annotations, a JSON file ({message})") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file}: expected COCO annotations, a JSON object with lists `images` and `annotations`")
    return content


def from_folders(images: Path, masks: Path, exemplars: Path | None, folder: Path) -> tuple[Rows, Dropped]:
    """Return a row for each picture below `images` that has a mask with the same path and stem, or stem + `_mask`.

    Args:
        masks: may be `images` itself; masks are then the files whose stem ends in `_mask`.
        exemplars: folder of exemplars with the same path and stem as their pictures.
        folder: where the manifest will lie; its paths are relative to it.

    Returns:
        the rows sorted by the picture's path, and the dropped items by reason.

    Raises:
        UserError: a folder is missing, holds no pictures, or holds two whose names differ only in their suffix.
    """
    pictures, found = _by_stem(images), _by_stem(masks)
    shown = {} if exemplars is None else _by_stem(exemplars)
    if images.resolve() == masks.resolve():
        pictures = {stem: file for stem, file in pictures.items() if not stem.endswith(MASK_SUFFIX)}
        found = {stem: file for stem, file in found.items() if stem not in pictures}
    rows, dropped, used = [], defaultdict(list), set()
    for stem, file in sorted(pictures.items()):
        mask = next((name for name in (stem, f"{stem}{MASK_SUFFIX}") if name in found), None)
        used.add(mask)
        if mask is None:
            dropped["pictures without a mask"].append(str(file))
        elif exemplars is not None and stem not in shown:
            dropped["pictures without an exemplar"].append(str(file))
        else:
            files = {"image": file, "mask": found[mask]} | ({"exemplar": shown[stem]} if exemplars else {})
            rows.append({name: _relative(path, folder) for name, path in files.items()})
    if unused := found.keys() - used:
        dropped["masks without a picture"] = [str(found[stem]) for stem in sorted(unused)]
    return rows, dropped


def _by_stem(folder: Path) -> dict[str, Path]:
    """Map relative paths without suffix to the pictures below a folder."""
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(
            f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}) in this folder or below, found none"
        )
    by_stem = {}
    for file in sorted(files):
        other = by_stem.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
        if other is not file:
            raise UserError(f"{folder}: {other.name} and {file.name} differ only in their suffix; remove one of them")
    return by_stem


def _relative(path: Path, folder: Path) -> str:
    """Return the path relative to the folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
