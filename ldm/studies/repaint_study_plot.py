"""The study of RePaint's network calls as a table and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ldm.studies.hole_filling import DISTANCE, PSNR, cells, row
from ldm.studies.repaint_study import MARGIN, Point
from ldm.utils.files import replacing


def table(curves: Mapping[str, Sequence[Point]], full: Point) -> str:
    """Markdown, one line a point: its figures, and their difference to the full schedule's on the scenes of both."""
    names = list(full.figures)
    head = ["curve", "way", "network calls", "of full, %", *names, *(f"{name}: - full" for name in names)]
    head += ["as good", "s/scene", "scenes"]
    lines = [row(*head), row(*["---"] * len(head))]
    for curve, points in {**curves, "full": [full]}.items():
        for point in points:
            mark = "-" if point is full else "yes" if point.as_good else "no"
            apart = ["-"] * len(names) if point is full else cells(point.difference, signed=True)
            share = f"{100 * point.calls / full.calls:.1f}"
            lines.append(
                row(curve, point.way, point.calls, share, *cells(point.figures), *apart, mark, f"{point.seconds:.2f}",
                    point.count)
            )  # fmt: skip
    return "\n".join(lines)


def draw(curves: Mapping[str, Sequence[Point]], full: Point, title: str, file: Path) -> None:
    """Write a PNG: feature distance and PSNR against network calls, with standard errors.

    A band stands for the full schedule and `MARGIN` standard errors around it. Curves are lines, but for `fast`: points
    of their samplers, which belong to no one curve.
    """
    figure = Figure(figsize=(13, 5), dpi=80, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), (DISTANCE, PSNR), strict=True):
        value, error = full.figures[name]
        label = f"full: {full.calls:,} calls, ± {MARGIN} standard errors"
        axes.axhspan(value - MARGIN * error, value + MARGIN * error, color="0.88", zorder=0, label=label)
        axes.axhline(value, color="0.6", zorder=1)
        for curve, points in _lines(curves).items():
            points = sorted(points, key=lambda point: point.calls)
            values, errors = zip(*(point.figures[name] for point in points), strict=True)
            style = "none" if curve.startswith("fast") else "-"
            calls = [point.calls for point in points]
            axes.errorbar(calls, values, errors, marker="o", capsize=2, linestyle=style, label=curve)
        axes.plot(full.calls, value, marker="*", markersize=12, color="black", linestyle="none")
        axes.set(xscale="log", xlabel="network calls a picture", title=f"{title}: {name}")
        axes.legend()
    with replacing(file) as partial:
        figure.savefig(partial, format="png")


def _lines(curves: Mapping[str, Sequence[Point]]) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    for curve, points in curves.items():
        for point in points:
            lines.setdefault(f"fast, {point.way.sampler}" if curve == "fast" else curve, []).append(point)
    return lines
