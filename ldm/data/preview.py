"""A contact sheet of a training set: each row an item as training will see it."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset

from ldm.utils.clip import CLIP_MEAN, CLIP_STD
from ldm.utils.errors import UserError
from ldm.utils.files import replacing
from ldm.utils.image import to_pil

CELL, GAP, LINE = 256, 8, 18  # pixels: side of a picture, space around it, height of a line of text
RED = torch.tensor([1.0, -1.0, -1.0])[:, None, None]


def write_sheet(dataset: Dataset, path: Path, count: int = 8) -> None:
    """Write the first `count` items of the first epoch as one PNG: pictures side by side, texts below.

    Raises:
        UserError: the items hold no pictures (a latent cache), the file cannot be written, or `count` is below 1.
    """
    if count < 1:
        raise UserError(f"count {count}: expected a positive number")
    items = [dataset[index] for index in range(min(count, len(dataset)))]
    rows = [(views(item), captions(item)) for item in items]
    if not rows or not rows[0][0]:
        raise UserError(f"{type(dataset).__name__}: its items hold no pictures to show ({', '.join(items[0])})")
    height = GAP + CELL + LINE
    sheet = Image.new("RGB", (GAP + len(rows[0][0]) * (CELL + GAP), LINE + GAP + len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for top, (pictures, text) in zip(range(LINE, sheet.height, height), rows, strict=False):
        for left, (name, picture) in zip(range(GAP, sheet.width, CELL + GAP), pictures.items(), strict=False):
            draw.text((left, 2), name, "black", font)
            sheet.paste(fit(picture), (left, top + GAP))
        draw.text((GAP, top + GAP + CELL + 1), text, "black", font)
    with replacing(path) as partial:
        sheet.save(partial, "PNG")


def views(item: dict) -> dict[str, Tensor]:
    """The pictures of an item under a name, (3, H, W) in [-1, 1]."""
    shown = {}
    if "image" in item:
        shown["image"] = image = item["image"]
        if "mask" in item:
            mask = item["mask"]
            shown["mask (red = repaint)"] = image + mask * 0.5 * (RED - image)
            shown["masked image"] = image * (1 - mask)
    for name in ("exemplar", "pixels"):
        if name in item:
            mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
            shown[f"{name} as CLIP sees it"] = (item[name] * std + mean) * 2 - 1
    return shown


def captions(item: dict) -> str:
    """What an item says in words and whole numbers."""
    said = {name: value for name, value in item.items() if isinstance(value, str | int)}
    return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in said.items())


def fit(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] as a picture of CELL pixels at most; small ones are enlarged so that their pixels show."""
    picture = to_pil(image)
    if picture.width <= CELL // 2:
        factor = CELL // picture.width
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    return picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
