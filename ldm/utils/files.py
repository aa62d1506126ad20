"""Atomic writing of files; reading of text, JSON and tables; hashes of contents."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ldm.utils.errors import UserError, reason


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some libraries create files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with suppress(OSError):  # usually it has been renamed
            temporary.unlink()


def remove_left(temporary: Path) -> None:
    """Remove a temporary file of `replacing`, unless another process on this machine is still writing it."""
    number = int(temporary.name.split(".")[-2])
    try:
        os.kill(number, 0)
        alive = number != os.getpid()
    except ProcessLookupError:
        alive = False
    except PermissionError:  # the process belongs to another user
        alive = True
    if not alive:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically into an existing folder; infinity and NaN, which JSON lacks, become null.

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
    """Read a JSON file.

    Raises:
        UserError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def read_column(file: str | Path, column: str) -> list[float]:
    """Read the numbers in a column of a CSV file, skipping empty cells.

    Raises:
        UserError: there is no such file, or the column is missing or empty.
    """
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            values = [float(row[column]) for row in csv.DictReader(lines) if row.get(column)]
    except OSError as error:
        raise UserError(f"{file}: {reason(error)}") from error
    if not values:
        raise UserError(f"{file}: column {column} is missing or empty")
    return values


def read_text(file: str | Path, kind: str) -> str:
    """Read a UTF-8 text file, without a byte order mark; `kind` names the file in messages.

    Raises:
        UserError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{kind} {file}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {file}: not UTF-8 text (byte {error.start})") from error


def content_hash(file: str | Path) -> str:
    """Return a hash of a file's bytes, 32 hexadecimal digits.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise UserError(f"{file}: {reason(error)}") from error
