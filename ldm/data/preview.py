"""Contact sheets of a training set: each row is an item as training sees it."""

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from ldm.utils.clip import clip_denormalise
from ldm.utils.contact_sheet import contact_sheet
from ldm.utils.errors import UserError
from ldm.utils.files import replacing
from ldm.utils.image import to_pil
from ldm.utils.overlay import tint


def write_sheet(dataset: Dataset, path: Path, count: int = 8) -> list[str]:
    """Write the first `count` items of the first epoch as one PNG, a row each; return their texts and whole numbers.

    Raises:
        UserError: the items hold no pictures (a latent cache), the file cannot be written, or `count` is below 1.
    """
    if count < 1:
        raise UserError(f"count {count}: expected 1 or more")
    items = [dataset[index] for index in range(min(count, len(dataset)))]
    rows = [views(item) for item in items]
    if not rows[0]:
        raise UserError(f"{type(dataset).__name__}: expected items with pictures, found {', '.join(items[0])}")
    sheet = contact_sheet({name: [to_pil(row[name]) for row in rows] for name in rows[0]})
    with replacing(path) as partial:
        sheet.save(partial, "PNG")
    return [words(item) for item in items]


def views(item: dict) -> dict[str, Tensor]:
    """Return the pictures of an item by name, (3, H, W) in [-1, 1]."""
    shown = {}
    if "image" in item:
        shown["image"] = image = item["image"]
        if "mask" in item:
            mask = item["mask"]
            shown["mask (red = repaint)"] = tint(image, mask)
            shown["masked image"] = image * (1 - mask)
    for name in ("exemplar", "pixels"):
        if name in item:
            shown[f"{name} as CLIP sees it"] = clip_denormalise(item[name]) * 2 - 1
    return shown


def words(item: dict) -> str:
    """Return the texts and whole numbers of an item in one line."""
    texts = {name: value for name, value in item.items() if isinstance(value, str | int)}
    return ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in texts.items())
