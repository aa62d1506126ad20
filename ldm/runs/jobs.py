"""Lists of jobs: a folder of pictures paired by name, a table (.csv) or JSON lines (.jsonl), one job a row."""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ldm.utils.errors import UserError
from ldm.utils.files import content_hash, read_text
from ldm.utils.nearest import nearest

SEVERAL = ("exemplar", "weights")  # in a table, values separated by `;`
WORDS = ("prompt", "source_prompt")  # in a folder, one text file each
FILES = ("image", "mask", "exemplar", *WORDS)
LONGEST = 200  # bytes of a name; file systems allow 255, and temporary files have longer names
Row = dict[str, Any] | UserError
Rows = Iterator[tuple[str, Row]]  # place in the list, and the row


@dataclass(frozen=True)
class Job:
    """A picture to be made; fields that the list does not give are None or empty.

    Attributes:
        name: of the result, `<name>.png`.
        exemplars: what to paint.
        weights: of the exemplars.
        place: in the list, for messages: "jobs.csv line 7".
        number: position in the list, counting wrong rows, from 0.
    """

    name: str
    image: Path
    mask: Path | None = None
    exemplars: tuple[Path, ...] = ()
    weights: tuple[float, ...] | None = None
    prompt: str | None = None
    source_prompt: str | None = None
    seed: int | None = None
    class_id: int | None = None
    place: str = ""
    number: int = field(default=0, compare=False)

    def told(self) -> dict[str, Any]:
        """Return the fields that are given."""
        return {
            key: value
            for key, value in vars(self).items()
            if key not in ("place", "number") and value not in (None, (), "")
        }

    def with_defaults(self, **values: Any) -> "Job":
        """Return the job with values for the fields that are not given."""
        return replace(self, **{key: value for key, value in values.items() if getattr(self, key) in (None, ())})

    def digest(self) -> str:
        """Return a hash of the job's text and numbers and of its files' contents, whatever their names.

        Raises:
            UserError: a file cannot be read.
        """
        files = {"image": self.image, "mask": self.mask} | dict(enumerate(self.exemplars))
        held = [(key, content_hash(file)) for key, file in files.items() if file is not None]
        words = (self.weights, self.prompt, self.source_prompt, self.seed, self.class_id)
        return hashlib.blake2b(repr((held, words)).encode(), digest_size=16).hexdigest()


def read_jobs(file: str | Path, needs: Collection[str], takes: Collection[str] = ()) -> tuple[list[Job], list[str]]:
    """Read the jobs of a list; for each row that is wrong there is one line, which names its place.

    The columns of a table, or keys of an object, are `name` (by default the stem of the image's name), image, mask,
    exemplar, weights, prompt, source_prompt, seed and class_id; exemplar and weights may have several values, in a
    table separated by `;`. Relative paths start at the list's own folder. In a folder, image/, mask/ and exemplar/
    contain pictures, prompt/ and source_prompt/ text files; files with the same stem form a job.

    Args:
        needs: columns that every job must fill, `image` among them.
        takes: columns that a job may fill.

    Returns:
        The jobs, and the lines about wrong rows.

    Raises:
        UserError: the list cannot be read, is empty, lacks a column or has an unknown one.
    """
    file, jobs, wrong = Path(file), {}, []
    known = dict.fromkeys(("name", *needs, *takes))
    readers = {".csv": lambda text: _table(file, text, needs, known), ".jsonl": lambda text: _json_lines(file, text)}
    if file.is_dir():
        base, rows = file, _folder(file, known)
    elif file.suffix.lower() in readers:
        base, rows = file.parent, readers[file.suffix.lower()](read_text(file, "jobs"))
    else:
        raise UserError(f"jobs {file}: expected a folder, a .csv file or a .jsonl file")
    for number, (place, row) in enumerate(rows):
        try:
            if isinstance(row, UserError):
                raise row
            job = replace(_job(row, base, place, needs, known), number=number)
            if job.name in jobs:
                raise UserError(f"name {job.name!r}: already used by {jobs[job.name].place}")
            jobs[job.name] = job
        except UserError as error:
            wrong.append(f"{place}: {error}")
    if not jobs and not wrong:
        raise UserError(f"jobs {file}: contains no jobs")
    return list(jobs.values()), wrong


def _folder(folder: Path, known: Collection[str]) -> Rows:
    rows: dict[str, Row] = {}
    for key in (key for key in FILES if key in known):
        for path in sorted((folder / key).glob("[!.]*")):
            row = rows.setdefault(path.stem, {})
            if isinstance(row, UserError):
                continue
            try:
                if key in row:
                    raise UserError(f"{key}: several files have this name, among them {path.name}")
                row[key] = read_text(path, key).strip() if key in WORDS else str(path.relative_to(folder))
            except UserError as error:
                rows[path.stem] = error
    return ((f"{folder.name}, {stem}", row) for stem, row in sorted(rows.items()))


def _table(file: Path, text: str, needs: Collection[str], known: Collection[str]) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)  # an unclosed quote is an error
    try:
        columns = [title.strip() for title in next(reader, [])]
        for column in columns:
            if column not in known:
                raise UserError(f"jobs {file}: unknown column {column!r}; {nearest(column, known)}")
            if columns.count(column) > 1:
                raise UserError(f"jobs {file}: column {column} occurs twice")
        if missing := [column for column in needs if column not in columns]:
            raise UserError(f"jobs {file}: column {missing[0]} is missing")
        for cells in reader:
            place = f"{file.name} line {reader.line_num}"
            if len(cells) > len(columns):
                yield place, UserError(f"found {len(cells)} values, expected {len(columns)} or fewer")
            elif any(cells):
                row = {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
                split = {key: [part.strip() for part in row[key].split(";")] for key in SEVERAL if row.get(key)}
                yield place, row | split
    except csv.Error as error:
        raise UserError(f"jobs {file}: line {reader.line_num} is not valid CSV ({error})") from error


def _json_lines(file: Path, text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = UserError(f"not valid JSON ({error})")
        if not isinstance(row, dict | UserError):
            row = UserError(f"expected an object {{...}}, found {line.strip()[:40]}")
        yield f"{file.name} line {number}", row


def _job(row: Mapping[str, Any], base: Path, place: str, needs: Collection[str], known: Collection[str]) -> Job:
    row = {key: value for key, value in row.items() if value not in (None, "", [])}
    for key in row:
        if key not in known:
            raise UserError(f"unknown key {_short(key)}; {nearest(key, known)}")
    for key in needs:
        if key not in row:
            raise UserError(f"{key}: missing")
    image, mask, weights = _picture("image", row["image"], base), row.get("mask"), row.get("weights")
    return Job(
        name=_name(row.get("name", image.stem)),
        image=image,
        mask=None if mask is None else _picture("mask", mask, base),
        exemplars=tuple(_picture("exemplar", path, base) for path in _several(row.get("exemplar", []))),
        weights=None if weights is None else tuple(_number("weights", weight) for weight in _several(weights)),
        prompt=_words("prompt", row.get("prompt")),
        source_prompt=_words("source_prompt", row.get("source_prompt")),
        seed=_whole("seed", row.get("seed")),
        class_id=_whole("class_id", row.get("class_id")),
        place=place,
    )


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _name(value: Any) -> str:
    if not isinstance(value, str) or value != Path(value).name or value.startswith(".") or not value.isprintable():
        raise UserError(f"name {_short(value)}: expected a file name without folder and suffix")
    if len(value.encode()) > LONGEST:
        raise UserError(f"name {value[:20]}...: expected at most {LONGEST} bytes")
    return value


def _words(key: str, value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise UserError(f"{key} {_short(value)}: expected text")
    return value


def _picture(key: str, value: Any, base: Path) -> Path:
    if value is None:  # in a list of exemplars
        raise UserError(f"{key} None: expected text")
    path = base / _words(key, value)
    if not os.path.isfile(path):
        raise UserError(f"{key} {path}: no such file")
    return path


def _whole(key: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value) else -1
    if not 0 <= number < 2**63:
        raise UserError(f"{key} {_short(value)}: expected a whole number, 0 or more")
    return number


def _number(key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 < number < math.inf:
        raise UserError(f"{key} {_short(value)}: expected a number above 0")
    return number


def _short(value: Any) -> str:
    """Return the beginning of a value, for a message."""
    return f"{value!r:.60}" if not isinstance(value, int) or abs(value) < 10**60 else "of more than 60 digits"
