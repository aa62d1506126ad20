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
WORDS = ("prompt", "source_prompt")  # in a folder, a text file each
FILES = ("image", "mask", "exemplar", *WORDS)
LONGEST = 200  # bytes of a name; file systems take 255, and a file in the making has a longer one
Row = dict[str, Any] | UserError
Rows = Iterator[tuple[str, Row]]  # place and what is there


@dataclass(frozen=True)
class Job:
    """A picture to be made. What is None or empty was not said.

    Attributes:
        name: of the result, `<name>.png`.
        exemplars: what to paint; with `weights`, of each.
        place: where the list says it, for messages: "jobs.csv line 7".
        number: its place among all that the list says, wrong lines too, from 0.
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
        """What was said of it."""
        return {
            key: value
            for key, value in vars(self).items()
            if key not in ("place", "number") and value not in (None, (), "")
        }

    def with_defaults(self, **values: Any) -> "Job":
        """The job with values for what was not said."""
        return replace(self, **{key: value for key, value in values.items() if getattr(self, key) in (None, ())})

    def digest(self) -> str:
        """A hash of what it asks for: the words and numbers, and what the files hold, whatever they are called.

        Raises:
            UserError: a file cannot be read.
        """
        files = {"image": self.image, "mask": self.mask} | dict(enumerate(self.exemplars))
        held = [(key, content_hash(file)) for key, file in files.items() if file is not None]
        words = (self.weights, self.prompt, self.source_prompt, self.seed, self.class_id)
        return hashlib.blake2b(repr((held, words)).encode(), digest_size=16).hexdigest()


def read_jobs(file: str | Path, needs: Collection[str], takes: Collection[str] = ()) -> tuple[list[Job], list[str]]:
    """The jobs of a list, and what is wrong with those that it has beside them: a line each, which names its place.

    The columns of a table, or keys of an object, are `name` (by default the image's, without its ending), image, mask,
    exemplar, weights, prompt, source_prompt, seed and class_id; exemplar and weights may have several values, in a
    table separated by `;`. A relative path starts at the list's own folder. In a folder, image/, mask/ and exemplar/
    hold pictures, prompt/ and source_prompt/ text files; those of one name are a job.

    Args:
        needs: the columns that every job has to fill; `image` is one of them.
        takes: those that it may fill.

    Raises:
        UserError: the list cannot be read, has an unknown column or lacks one, or there is nothing in it.
    """
    file, jobs, wrong = Path(file), {}, []
    known = dict.fromkeys(("name", *needs, *takes))
    readers = {".csv": lambda text: _table(file, text, needs, known), ".jsonl": lambda text: _json_lines(file, text)}
    if file.is_dir():
        base, rows = file, _folder(file, known)
    elif file.suffix.lower() in readers:
        base, rows = file.parent, readers[file.suffix.lower()](read_text(file, "jobs"))
    else:
        raise UserError(f"jobs {file}: expected a folder, or a file .csv or .jsonl")
    for number, (place, row) in enumerate(rows):
        try:
            if isinstance(row, UserError):
                raise row
            job = replace(_job(row, base, place, needs, known), number=number)
            if job.name in jobs:
                raise UserError(f"name {job.name!r}: {jobs[job.name].place} has the same")
            jobs[job.name] = job
        except UserError as error:
            wrong.append(f"{place}: {error}")
    if not jobs and not wrong:
        raise UserError(f"jobs {file}: there is none in it")
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
                    raise UserError(f"{key}: several files are of this name, {path.name} is one")
                row[key] = read_text(path, key).strip() if key in WORDS else str(path.relative_to(folder))
            except UserError as error:
                rows[path.stem] = error
    return ((f"{folder.name}, {stem}", row) for stem, row in sorted(rows.items()))


def _table(file: Path, text: str, needs: Collection[str], known: Collection[str]) -> Rows:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)  # a quote that is not closed is told
    try:
        columns = [title.strip() for title in next(reader, [])]
        for column in columns:
            if column not in known:
                raise UserError(f"jobs {file}: unknown column {column!r}; {nearest(column, known)}")
            if columns.count(column) > 1:
                raise UserError(f"jobs {file}: column {column} is there twice")
        if missing := [column for column in needs if column not in columns]:
            raise UserError(f"jobs {file}: no column {missing[0]}")
        for cells in reader:
            place = f"{file.name} line {reader.line_num}"
            if len(cells) > len(columns):
                yield place, UserError(f"{len(cells)} values, expected {len(columns)} or fewer")
            elif any(cells):
                row = {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
                split = {key: [part.strip() for part in row[key].split(";")] for key in SEVERAL if row.get(key)}
                yield place, row | split
    except csv.Error as error:
        raise UserError(f"jobs {file}: line {reader.line_num} is no line of a table ({error})") from error


def _json_lines(file: Path, text: str) -> Rows:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = UserError(f"is no JSON ({error})")
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
            raise UserError(f"no {key}")
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
        raise UserError(f"name {_short(value)}: expected that of a file, without folder and ending")
    if len(value.encode()) > LONGEST:
        raise UserError(f"name {value[:20]}...: expected {LONGEST} bytes or less")
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
    """For a message: the beginning of whatever was found."""
    return f"{value!r:.60}" if not isinstance(value, int) or abs(value) < 10**60 else "of more than 60 digits"
