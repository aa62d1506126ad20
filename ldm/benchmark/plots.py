"""A report's table as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from ldm.benchmark.report import ARROWS, Report
from ldm.evaluation.bootstrap import Estimate
from ldm.utils.files import replacing

ACROSS = 3  # panels side by side
COLOURS = {"paper": "tab:grey", "here": "tab:blue"}


def plot_rows(report: Report, path: Path) -> None:
    """Write a PNG: a panel for each metric that any row has, every row's value in it, with its interval.

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
