"""Pictures to files: whole or not at all, with the settings that made them inside."""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ldm import __version__
from ldm.utils.errors import UserError
from ldm.utils.files import replacing

SETTINGS_KEY = "ldm"  # of the PNG text chunk
MARGIN = 8
MIN_HEIGHT = 192  # of a row of pictures
MAX_ENLARGED = 2048  # pixels of width


def check_writable(folder: str | Path) -> None:
    """Find out whether files could be written into a folder, existing or not, without leaving anything behind.

    Raises:
        UserError: they could not.
    """
    wanted = Path(folder).absolute()
    existing = next(path for path in (wanted, *wanted.parents) if os.path.exists(path))
    try:
        with tempfile.TemporaryDirectory(dir=existing) as scratch:
            Path(scratch, wanted.relative_to(existing)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output folder {folder}: cannot be written to ({existing}: {error.strerror})") from error


def run_record(given: Mapping[str, Any], keys: Iterable[str], precision: str, device: torch.device) -> dict[str, Any]:
    """What pictures say about the run that made them: of the flags given those named, and what was chosen for it."""
    told = {key: given[key] for key in keys if key in given}
    return {"version": __version__, **told, "precision": precision, "device": str(device)}


def save_png(image: Image.Image, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, whole or not at all, making its folder; `settings` go inside as JSON (see `read_settings`).

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    info = PngInfo()
    if settings is not None:
        info.add_text(SETTINGS_KEY, json.dumps(settings, default=os.fspath))  # paths as text
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings inside a PNG that `save_png` wrote.

    Raises:
        UserError: it is none.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(SETTINGS_KEY)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from error
    try:
        settings = json.loads(text)
    except (TypeError, ValueError, RecursionError):  # no text, or another one
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: holds no settings of an edit")
    return settings


def next_number(folder: Path, prefix: str) -> int:
    """One more than the highest N of the files `<prefix>N.png` in a folder, which need not exist; 0 where none is."""
    names = (re.fullmatch(rf"{re.escape(prefix)}(\d+)\.png", path.name) for path in folder.glob("*.png"))
    return max((int(name[1]) for name in names if name), default=-1) + 1


def labelled_row(cells: Sequence[tuple[str, Image.Image]], height: int | None = None) -> Image.Image:
    """Pictures side by side at one height with a caption above each; transparency on grey.

    The height is by default that of the first picture, but small pictures are enlarged to be looked at, unless they are
    so wide that it would make them huge.
    """
    if height is None:
        first = cells[0][1]
        height = max(first.height, min(MIN_HEIGHT, first.height * MAX_ENLARGED // first.width))
    font = ImageFont.load_default(size=min(max(height // 20, 10), 28))
    line = sum(font.getmetrics())
    scaled = [image.resize((max(round(image.width * height / image.height), 1), height)) for _, image in cells]
    widths = [max(image.width, round(font.getlength(label))) for image, (label, _) in zip(scaled, cells, strict=True)]
    row = Image.new("RGB", (sum(widths) + MARGIN * (len(cells) + 1), height + line + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(row)
    x = MARGIN
    for image, width, (label, _) in zip(scaled, widths, cells, strict=True):
        draw.text((x, MARGIN // 2), label, fill="black", font=font)
        row.paste((128, 128, 128), (x, MARGIN + line, x + image.width, MARGIN + line + height))
        row.paste(image, (x, MARGIN + line), image if image.mode == "RGBA" else None)
        x += width + MARGIN
    return row
