"""PNG files, written atomically, with the settings that made them inside."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing

SETTINGS_KEY = "ldm"  # of the PNG text chunk


def save_png(image: Image.Image, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Write a PNG atomically, creating its folder; `settings` are stored inside as JSON (see `read_settings`).

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
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=info)


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read the settings inside a PNG that `save_png` wrote.

    Raises:
        UserError: the file is not such a PNG.
    """
    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(SETTINGS_KEY)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from error
    try:
        settings = json.loads(text or "")
    except (TypeError, ValueError, RecursionError):  # no text, or other text
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: contains no settings of an edit")
    return settings


def next_number(folder: Path, prefix: str) -> int:
    """Return the highest N of the files `<prefix>N.png` in a folder plus one; 0 without files or folder."""
    names = (re.fullmatch(rf"{re.escape(prefix)}(\d+)\.png", path.name) for path in folder.glob("*.png"))
    return max((int(name[1]) for name in names if name), default=-1) + 1
