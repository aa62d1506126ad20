"""Output helpers of the commands that make pictures: checks of folders, records of a run, rows of pictures."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from ldm import __version__
from ldm.utils.errors import UserError, reason

MARGIN = 8
MIN_HEIGHT = 192  # of a row of pictures
MAX_ENLARGED = 2048  # pixels of width


def check_writable(folder: str | Path) -> None:
    """Check that files can be written into a folder, existing or not, without leaving anything behind.

    Raises:
        UserError: they cannot.
    """
    wanted = Path(folder).absolute()
    existing = next(path for path in (wanted, *wanted.parents) if os.path.exists(path))
    try:
        with tempfile.TemporaryDirectory(dir=existing) as scratch:
            Path(scratch, wanted.relative_to(existing)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output folder {folder}: not writable ({existing}: {reason(error)})") from error


def check_free(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace results, unless they are to be overwritten.

    Raises:
        UserError: one of the files is there.
    """
    if not overwrite and (there := [path for path in paths if path.exists()]):
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}: is there already{more}; choose another --outdir or --seed, or --overwrite it")


def run_record(given: Mapping[str, Any], keys: Iterable[str], precision: str, device: torch.device) -> dict[str, Any]:
    """Return the record of a run to store in its pictures: those flags given that `keys` lists, and what was chosen."""
    flags = {key: given[key] for key in keys if key in given}
    return {"version": __version__, **flags, "precision": precision, "device": str(device)}


def labelled_row(cells: Sequence[tuple[str, Image.Image]], height: int | None = None) -> Image.Image:
    """Draw pictures side by side at one height with a caption above each, and transparency on grey.

    The default height is that of the first picture; small pictures are enlarged unless they would become too wide.
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
