"""The report of a benchmark: `report.md` for people, `report.json` for programs, and plots."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from ldm.evaluation.bootstrap import Estimate
from ldm.evaluation.extractors import Extractor, LpipsDistance
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing, write_json

ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
Value = Estimate | float | None  # None: not measured, or not stated


@dataclass(frozen=True)
class Column:
    """A metric.

    Args:
        key: of the rows' values.
        title: heading of the column; distinguishes metrics that share a name ("FID (CLIP)").
        better: the better direction.
        digits: after the decimal point.
    """

    key: str
    title: str
    better: Literal["lower", "higher"] | None = None
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A method.

    Args:
        values: by column key; a missing key means None.
        source: `paper` for numbers copied from a paper or elsewhere, `here` for those of this run.
        note: what a reader has to know to compare the row.
    """

    name: str
    values: Mapping[str, Value]
    source: Literal["paper", "here"]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """A table with everything that it depends on.

    Args:
        about: config, seeds, hashes, times and whatever else the numbers depend on, for JSON.
        notes: sentences below the table.
        partial: the reason why this is not the whole benchmark; None if it is.

    Raises:
        ValueError: a row has a value without a column.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    about: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)
    partial: str | None = None

    def __post_init__(self):
        known = {column.key for column in self.columns}
        for row in self.rows:
            if unknown := row.values.keys() - known:
                raise ValueError(f"row {row.name}: no column {min(unknown)}")


def write_report(
    report: Report, folder: str | Path, plots: Mapping[str, Callable[[Path], None]] | None = None
) -> list[Path]:
    """Write `report.md`, `report.json` and the plots atomically, and return their paths.

    Args:
        folder: created if missing.
        plots: name -> function that writes a PNG to the path given; the file is `<name>.png`.

    Raises:
        UserError: a file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}") from error
    pictures = [folder / f"{name}.png" for name in plots or {}]
    for path, plot in zip(pictures, (plots or {}).values(), strict=True):
        plot(path)
    table, numbers = folder / "report.md", folder / "report.json"
    with replacing(table) as partial:
        partial.write_text(markdown(report, [path.name for path in pictures]), encoding="utf-8")
    write_json(numbers, asdict(report))
    return [table, numbers, *pictures]


def markdown(report: Report, pictures: Sequence[str] = ()) -> str:
    """Return the report as Markdown; `pictures` are paths of images to show."""
    lines = [f"# {report.title}", ""]
    if report.partial:
        lines += [f"**Partial: {report.partial}.** These numbers are not the benchmark's.", ""]
    titles = [column.title + ARROWS[column.better] for column in report.columns]
    noted = any(row.note for row in report.rows)
    lines += [_line(["", *titles, *["note"] * noted]), _line(["---"] * (1 + len(titles) + noted))]
    for row in report.rows:
        cells = [row.name, *(_cell(row.values.get(column.key), column.digits) for column in report.columns)]
        if row.source == "paper":
            cells = [f"*{cell}*" for cell in cells]
        lines.append(_line([*cells, *[row.note] * noted]))
    legend = []
    if any(row.source == "paper" for row in report.rows):
        legend.append("In italics: numbers copied from elsewhere.")
    if any(isinstance(value, Estimate) for row in report.rows for value in row.values.values()):
        legend.append("In brackets: 95 % bootstrap intervals over the items measured.")
    lines += ["", " ".join([*legend, "-: not stated or not measured."]), ""]
    lines += [f"- {note}" for note in report.notes] + [""] * bool(report.notes)
    lines += [f"![{Path(name).stem.replace('_', ' ')}]({name})\n" for name in pictures]
    lines += ["## What it depends on", "", "| | |", "|---|---|"]
    lines += [_line([key, f"`{value}`"]) for key, value in _flat(report.about)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(value: Value, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"  # an estimate with its interval


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested values to dotted names, with indices for lists; a list of plain values becomes one line."""
    found = []
    for key, value in node.items():
        if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else value))
    return found


ACROSS = 3  # panels in a line
COLOURS = {"paper": "tab:grey", "here": "tab:blue"}


def plot_rows(report: Report, path: Path) -> None:
    """Write a PNG with a panel for each metric that was measured: the value of every row and its interval.

    Raises:
        UserError: the file cannot be written.
    """
    columns = [c for c in report.columns if any(row.values.get(c.key) is not None for row in report.rows)]
    down = max(-(-len(columns) // ACROSS), 1)
    size = (5 * ACROSS, down * (1.2 + 0.28 * len(report.rows)))
    figure = Figure(figsize=size, dpi=80, layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).ravel()
    for panel, column in zip(panels, columns, strict=False):
        rows = [row for row in report.rows if row.values.get(column.key) is not None]
        for place, row in enumerate(rows):
            value = row.values[column.key]
            low, middle, high = (value.low, value.value, value.high) if isinstance(value, Estimate) else [value] * 3
            panel.plot([low, high], [place, place], color=COLOURS[row.source])
            panel.plot(middle, place, "o", color=COLOURS[row.source])
        panel.set_yticks(range(len(rows)), [row.name for row in rows])
        panel.invert_yaxis()  # the first row on top, as in the table
        panel.set_title(column.title + ARROWS[column.better])
    for panel in panels[len(columns) :]:
        panel.set_axis_off()
    if report.partial:
        figure.suptitle(f"Partial: {report.partial}", color="tab:red", wrap=True)
    with replacing(path) as partial:
        figure.savefig(partial, format="png")


def abouts(networks: Mapping[str, Extractor | LpipsDistance]) -> dict[str, dict[str, str]]:
    """Return what the numbers of networks depend on, by kind, for a report."""
    return {kind: network.about for kind, network in networks.items()}


def random_notes(networks: Mapping[str, Extractor | LpipsDistance]) -> list[str]:
    """Return a warning for each network whose weights are random."""
    return [
        f"**The weights of {network.name} are random, for a trial: its numbers mean nothing.**"
        for network in networks.values()
        if network.about["weights"].startswith("random")
    ]
