"""Measure how fast training items load, against a port of the original's data set.

The port works like the original (Paint by Example, ldm/data/open-images.py): the picture is decoded twice, with PIL and
with OpenCV; the exemplar is augmented by albumentations, with current names for the settings of the release that the
original pins; image and mask become tensors at full size, resized by torchvision. Both data sets get the same boxes.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError
from ldm.utils.extras import require

BATCH = 4


def main() -> None:
    parser = Parser("Measure samples per second on one core: our data set against a port of the original's, in turn.")
    parser.add_argument("--root", type=Path, default=Path("dataset/open-images"), help="folder with images and bbox")
    parser.add_argument("--split", default="train", help="train, validation or test")
    parser.add_argument("--size", type=int, default=512, help="side of an item's image in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="number of passes over the split for each data set")
    options = parser.parse_args()
    if options.rounds < 1:
        raise UserError(f"--rounds {options.rounds}: expected a positive number")
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

    require("cv2")
    import cv2
    import torch

    from ldm.data.open_images import OpenImagesDataset
    from ldm.data.recipe import Recipe

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    ours = OpenImagesDataset(str(options.root), options.split, Recipe(size=options.size))
    port = Numbered(make_port(ours, options.size))
    rates = {"ours": [], "port": []}
    for number in range(-1, options.rounds):  # the first round fills caches and does not count
        for name, data in (("ours", ours), ("port", port)):
            rates[name].append(rate(data, range((number + 1) * len(ours), (number + 2) * len(ours))))
    rates = {name: values[1:] for name, values in rates.items()}
    for name, values in rates.items():
        rounds = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name}: {statistics.median(values):.1f} samples/s (rounds: {rounds})")
    ratios = [a / b for a, b in zip(rates["ours"], rates["port"], strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"{len(ours)} pictures of {options.root}, {options.size} px, batches of {BATCH}, one process, one thread")


class Numbered:
    """A data set made from a function of an item's number."""

    def __init__(self, item: Callable[[int], dict]):
        self.item = item

    def __getitem__(self, index: int) -> dict:
        return self.item(index)


def rate(data, indices: range) -> float:
    """Return items per second through a DataLoader, by process time, which other processes do not affect."""
    from torch.utils.data import DataLoader

    start = time.process_time()
    for _ in DataLoader(data, BATCH, sampler=indices):
        pass
    return len(indices) / (time.process_time() - start)


def make_port(ours, size: int) -> Callable[[int], dict]:
    """Return the original's pipeline on the pictures and boxes of our data set, as a function of an item's number."""
    require("cv2")
    try:
        import albumentations as A
    except ImportError as error:
        raise UserError("albumentations: not installed, but the port needs it; pip install albumentations") from error
    import cv2
    from PIL import Image
    from torchvision import transforms

    border = {"border_mode": cv2.BORDER_REFLECT_101}
    augment = A.Compose([
        A.Resize(224, 224),
        A.HorizontalFlip(p=0.5),
        A.Rotate(limit=20, **border),
        A.Blur(p=0.3, blur_limit=(3, 7)),
        # together equivalent to ElasticTransform with alpha_affine=50, which moved three corners of the central square
        A.Sequential(
            [A.Affine(translate_px=(-50, 50), shear=(-20, 20), p=1, **border),
             A.ElasticTransform(alpha=1, sigma=50, p=1, **border)],
            p=0.3,
        ),
    ])  # fmt: skip
    to_image = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    to_clip = transforms.Compose([
        transforms.ToTensor(),
        transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    shrink = transforms.Resize([size, size], antialias=False)

    def item(index: int) -> dict:
        place, rng = index % len(ours), Random(index)
        file = ours.images / ours.boxes.image(place)
        picture = Image.open(file).convert("RGB")
        width, height = picture.size
        box = rng.choice(ours.boxes.boxes(place, width, height))
        again = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        x0, y0, x1, y1 = max(box[0] - 10, 0), max(box[1] - 10, 0), min(box[2] + 10, width), min(box[3] + 10, height)
        exemplar = to_clip(Image.fromarray(augment(image=again[y0:y1, x0:x1])["image"]))
        grown = extend(box, width, height, rng)
        mask = draw_mask(box, grown, width, height, rng)
        left, top, right, bottom = window(grown, width, height, rng)
        image = shrink(to_image(picture)[:, top:bottom, left:right])
        mask = shrink(1 - transforms.ToTensor()(mask)[:, top:bottom, left:right])
        return {"GT": image, "inpaint_image": image * mask, "inpaint_mask": mask, "ref_imgs": exemplar}

    return item


def extend(box, width: int, height: int, rng: Random) -> tuple[int, int, int, int]:
    """Move each side of a box outwards by up to 0.4 of the free space."""
    x0, y0, x1, y1 = box
    moves = [rng.randint(0, int(0.4 * space)) for space in (x0, y0, width - x1, height - y1)]
    return x0 - moves[0], y0 - moves[1], x1 + moves[2], y1 + moves[3]


def draw_mask(box, grown, width: int, height: int, rng: Random):
    """Draw a PIL image, 255 in the grown box or within four curves that bulge from the box towards it."""
    import numpy as np
    from PIL import Image, ImageDraw

    if rng.uniform(0, 1) >= 0.5:
        mask = np.zeros((height, width), np.uint8)
        mask[grown[1] : grown[3], grown[0] : grown[2]] = 255
        return Image.fromarray(mask)
    (x0, y0, x1, y1), (left, top, right, bottom) = box, grown
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    corners, middles = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], [(x, top), (right, y), (x, bottom), (left, y)]
    points, times = [], np.arange(1, 19)[:, None] * 0.05
    for a, b, c in zip(corners, middles, corners[1:] + corners[:1], strict=True):
        curve = (1 - times) ** 2 * a + 2 * times * (1 - times) * b + times**2 * c
        points += [(px + rng.randint(-5, 5), py + rng.randint(-5, 5)) for px, py in curve]
    mask = Image.new("RGB", (width, height))
    ImageDraw.Draw(mask).polygon(points, fill=(255, 255, 255))
    return mask.convert("L")


def window(box, width: int, height: int, rng: Random) -> tuple[int, int, int, int]:
    """Choose a square around the box, or the whole picture if no square contains it."""
    x0, y0, x1, y1 = box
    side = min(width, height)
    lefts = (0, 0) if width <= height else (max(x1 - side, 0), min(x0, width - side))
    tops = (0, 0) if height <= width else (max(y1 - side, 0), min(y0, height - side))
    if lefts[0] > lefts[1] or tops[0] > tops[1]:
        return 0, 0, width, height
    left, top = rng.randint(*lefts), rng.randint(*tops)
    shrink = rng.randint(0, int(0.6 * max(min(y0 - top, x0 - left, left + side - x1, top + side - y1), 0)))
    return left + shrink, top + shrink, left + side - shrink, top + side - shrink
