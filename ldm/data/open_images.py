"""Open Images as self-supervised training data: a picture, one of its boxes as the hole, the same box as the exemplar.

Paint by Example, arXiv 2211.13227, section 3. Read from the layout that the official downloads have:

    root/images/{train_0, train_1, ..., validation, test}/<image id>.jpg
    root/annotations/*{train, validation, test}-annotations-bbox.csv
"""

import logging
import os
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.augmentation import augment
from ldm.data.crops import Box, cut, extended_box, padded_box, square_window
from ldm.data.images import Epochs, read_picture, to_tensor
from ldm.data.masks import bezier_mask, box_mask
from ldm.utils.clip import clip_normalise
from ldm.utils.errors import UserError

log = logging.getLogger(__name__)

AREA = (0.02, 0.8)  # of the picture, both ends included: smaller boxes show too little, larger ones leave no context


class OpenImagesDataset(Epochs, Dataset):
    """Items with "image", "mask", "exemplar", "image_id" and "box"; one box of the picture is drawn uniformly.

    image: (3, S, S) float32 in [-1, 1]. mask: (1, S, S) float32, 1 = repaint, soft at the edge where the window was
    resized (bilinear). exemplar: (3, E, E) float32, normalised for CLIP. image_id: string. box: the drawn box (x0, y0,
    x1, y1) in pixels of the item's image, float32. Item i is a function of (seed, epoch, i); see `set_epoch`.

    Args:
        root: folder with `images` and `annotations`.
        split: train, validation or test; the train pictures lie in any number of folders train_*.
        size: S, pixels.
        exemplar_size: E, pixels; the box is squashed into this square.
        arbitrary_mask_percent: share of Bezier-shaped masks, 0..1; the others are filled boxes.
        pad: how far the exemplar reaches beyond the box, in pixels of the file.
        jitter: how far the points of a Bezier-shaped mask stray, in pixels of the file.
        augment: augment the exemplar; off for a look at the plain crops.
        squash: as in the original, squash a picture of which no square window holds the box; otherwise it is padded.

    Raises:
        UserError: no pictures, no annotation file, or no box left; when an item is read: an unreadable picture.
    """

    def __init__(
        self,
        root: str,
        split: str,
        size: int = 512,
        exemplar_size: int = 224,
        seed: int = 0,
        arbitrary_mask_percent: float = 0.5,
        pad: int = 10,
        jitter: int = 5,
        augment: bool = True,
        squash: bool = False,
    ):
        super().__init__(seed)
        self.size, self.exemplar_size = size, exemplar_size
        self.arbitrary_mask_percent, self.pad, self.jitter = arbitrary_mask_percent, pad, jitter
        self.augment, self.squash = augment, squash
        ids, boxes = read_boxes(annotation_file(Path(root), split))
        self.shards, found, shard = list_images(Path(root), split)
        # Boxes sorted by image; image k has boxes first[k] .. first[k + 1].
        unique, start = np.unique(ids, return_index=True)
        end = np.append(start[1:], len(ids))
        place = np.searchsorted(found, unique)
        present = found[np.minimum(place, len(found) - 1)] == unique
        self.ids, self._shard = unique[present], shard[place[present]]
        self._start, self._end, self._boxes = start[present], end[present], boxes
        if not len(self.ids):
            raise UserError(f"{root}: no picture of split {split} has a box that covers {AREA[0]} to {AREA[1]} of it")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        image_id = self.ids[index].decode()
        picture = read_picture(self.shards[self._shard[index]] / f"{image_id}.jpg")
        height, width = picture.shape[:2]
        scale = np.array([width, height, width, height])
        boxes = np.rint(self._boxes[self._start[index] : self._end[index]] * scale).astype(int)
        return {**self.example(picture, boxes.tolist(), self.random(index)), "image_id": image_id}

    def example(self, picture: np.ndarray, boxes: list[Box], rng: Random) -> dict[str, Tensor]:
        """The recipe: a picture (H, W, 3) uint8 with its boxes in pixels -> one item."""
        height, width = picture.shape[:2]
        box = tuple(rng.choice(boxes))
        extended = extended_box(box, width, height, rng)
        if rng.uniform(0, 1) < self.arbitrary_mask_percent:
            mask = bezier_mask(box, extended, width, height, rng, self.jitter)
        else:
            mask = box_mask(extended, width, height)
        window = square_window(extended, width, height, rng, self.squash)
        image = resize(to_tensor(cut(picture, window, fill=128)), self.size)
        mask = resize(torch.from_numpy(np.array(cut(mask, window)))[None].float() / 255, self.size)

        crop = Image.fromarray(cut(picture, padded_box(box, self.pad, width, height)))
        exemplar = exemplar_tensor(crop, self.exemplar_size)
        if self.augment:
            exemplar = augment(exemplar, rng)
        (left, top, right, bottom), (x0, y0, x1, y1) = window, box
        corners = torch.tensor([x0 - left, y0 - top, x1 - left, y1 - top], dtype=torch.float32)
        corners *= self.size / torch.tensor([right - left, bottom - top] * 2)
        return {"image": image, "mask": mask, "exemplar": clip_normalise(exemplar), "box": corners}


def exemplar_tensor(crop: Image.Image, size: int) -> Tensor:
    """A picture squashed to size x size (bicubic), as (3, size, size) float32 in [0, 1]."""
    crop = crop.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255


def resize(image: Tensor, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size), bilinear without antialiasing."""
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image[None], size=(size, size), mode="bilinear", align_corners=False, antialias=False)[0]


def annotation_file(root: Path, split: str) -> Path:
    """The box annotations of a split, whichever release prefix their name carries (`oidv6-train-...`)."""
    files = sorted((root / "annotations").glob(f"*{split}-annotations-bbox.csv"))
    if len(files) != 1:
        found = f"found {', '.join(file.name for file in files)}" if files else "found none"
        raise UserError(f"{root / 'annotations'}: expected one file *{split}-annotations-bbox.csv, {found}")
    return files[0]


def read_boxes(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The usable boxes: their image ids (N,) bytes, sorted, and (N, 4) float32 x0, y0, x1, y1 in 0..1.

    Rows with too few or too many fields, boxes that are none and boxes of another area than `AREA` are left out, and
    the log says how many of each.
    """
    names = ["ImageID", "XMin", "YMin", "XMax", "YMax"]
    types = dict(zip(names, [pa.binary()] + [pa.float64()] * 4, strict=True))
    cut = []  # rows of another length than the header, such as the last one of an interrupted download
    try:
        table = csv.read_csv(
            file,
            parse_options=csv.ParseOptions(invalid_row_handler=lambda row: cut.append(row) or "skip"),
            convert_options=csv.ConvertOptions(include_columns=names, column_types=types),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        message = str(error).splitlines()[0]
        raise UserError(f"{file}: expected a CSV with the columns {', '.join(names)} ({message})") from error
    ids = table["ImageID"]
    boxes = np.stack([table[name].to_numpy() for name in names[1:]], 1)
    kept = _usable(boxes, len(cut), file)
    ids = ids.filter(pa.array(kept)).combine_chunks().dictionary_encode()
    ids = np.array(ids.dictionary.to_pylist(), dtype=bytes)[ids.indices.to_numpy()]
    order = np.argsort(ids, kind="stable")
    return ids[order], boxes[kept][order].astype(np.float32)


def _usable(boxes: np.ndarray, cut: int, file: Path) -> np.ndarray:
    """Which boxes (N, 4) to keep, (N,) bool; the others are counted in the log, each under the first rule it breaks."""
    x0, y0, x1, y1 = boxes.T
    inside = ((boxes >= 0) & (boxes <= 1)).all(1)
    area = np.where(inside, (x1 - x0) * (y1 - y0), 0)
    rules = {
        "lack a number": ~np.isnan(boxes).any(1),
        "reach beyond the picture": inside,
        "are empty or turned round": (x0 < x1) & (y0 < y1),
        f"cover less than {AREA[0]} or more than {AREA[1]} of the picture": (area >= AREA[0]) & (area <= AREA[1]),
    }
    kept, dropped = np.ones(len(boxes), bool), {"have too few or too many fields": cut}
    for rule, good in rules.items():
        dropped[rule] = int((kept & ~good).sum())
        kept &= good
    counts = "; ".join(f"{count} {rule}" for rule, count in dropped.items() if count)
    malformed = any(list(dropped.values())[:-1])  # that boxes are too small or too large is no fault of the file
    log.log(
        logging.WARNING if malformed else logging.INFO,
        "%s: %d boxes kept; left out: %s",
        file,
        kept.sum(),
        counts or "none",
    )
    return kept


def list_images(root: Path, split: str) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """The split's folders on disk, the image ids found in them (sorted, bytes) and the folder number of each."""
    try:
        folders = sorted(entry.name for entry in os.scandir(root / "images") if entry.is_dir())
    except OSError as error:
        raise UserError(f"{root}: expected a folder `images` with the pictures ({error.strerror})") from error
    shards = [root / "images" / name for name in folders if name == split or name.startswith(f"{split}_")]
    ids, numbers = [], []
    for number, shard in enumerate(shards):
        names = [entry.name[:-4].encode() for entry in os.scandir(shard) if entry.name.endswith(".jpg")]
        ids += names
        numbers += [number] * len(names)
    if not ids:
        raise UserError(f"{root / 'images'}: no .jpg in a folder {split} or {split}_*")
    ids, numbers = np.array(ids), np.array(numbers, np.int32)
    order = np.argsort(ids, kind="stable")
    return shards, ids[order], numbers[order]
