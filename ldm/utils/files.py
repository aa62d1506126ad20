"""Files that appear under their name only when they are complete; text, JSON and tables; what files hold, hashed."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ldm.utils.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes `path`'s place only if the block ends well.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some libraries make files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or ' '.join(str(error).split())}") from error
    finally:
        with suppress(OSError):  # as a rule it is gone by now
            temporary.unlink()


def remove_left(temporary: Path) -> None:
    """Remove a file that `replacing` has left behind, unless another process still writes it on this machine."""
    number = int(temporary.name.split(".")[-2])
    try:
        os.kill(number, 0)
        alive = number != os.getpid()
    except ProcessLookupError:
        alive = False
    except PermissionError:  # it is somebody else's
        alive = True
    if not alive:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; its folder is there. JSON has no infinity and no NaN: they become null.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({error})") from error


def read_column(file: str | Path, column: str) -> list[float]:
    """The entries of a column of a CSV file, from the top, without the empty ones.

    Raises:
        UserError: there is no such file, or nothing in the column.
    """
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            values = [float(row[column]) for row in csv.DictReader(lines) if row.get(column)]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    if not values:
        raise UserError(f"{file}: no column {column}, or nothing in it")
    return values


def read_text(file: str | Path, kind: str) -> str:
    """The text of a file in UTF-8, without a byte order mark; `kind` is what messages call it.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{kind} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {file}: no text in UTF-8 (byte {error.start})") from error


def content_hash(file: str | Path) -> str:
    """A hash of a file's bytes, 32 hexadecimal digits.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
