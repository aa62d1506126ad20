"""The quality of RePaint against network calls, over ways to walk through time, all measured on the same scenes.

Results are stored for each scene: an interrupted study continues at the next batch, and a study repeated with more
scenes adds the missing ones.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ldm.editors.repaint import RePaint
from ldm.presets import RePaintSettings
from ldm.runs.kept_results import KeptResults
from ldm.studies.hole_filling import (
    DISTANCE,
    PSNR,
    Callback,
    Distances,
    Summary,
    advantage,
    cells,
    difference,
    fill,
    measure,
    row,
    summary,
)
from ldm.studies.judging import Figures
from ldm.utils.files import replacing

MARGIN = 2  # standard errors by which a way may be worse than the full schedule and still count as equally good
SHARE = 0.1  # share of the full schedule's calls up to which a way counts as fast


@dataclass(frozen=True)
class Way:
    """A way through time: `steps` of a sampler, with jumps of `jump_length` walked `jump_n_sample` times."""

    sampler: str
    steps: int
    jump_length: int = 1
    jump_n_sample: int = 1
    eta: float = 0.0

    def __str__(self) -> str:
        jumps = f", jump {self.jump_length}, {self.jump_n_sample} times" if self.jump_n_sample > 1 else ""
        return f"{self.sampler}{f' eta {self.eta:g}' if self.eta else ''}, {self.steps} steps{jumps}"

    def settings(self, base: RePaintSettings) -> RePaintSettings:
        """Return settings changed to this way.

        Raises:
            UserError: there is no such way.
        """
        return replace(base, **vars(self))

    def calls(self, base: RePaintSettings) -> int:
        """Count the network calls for one picture."""
        return self.settings(base).calls()


CURVES = {
    "resampled": [Way("ddpm", 50), *(Way("ddpm", 50, 5, count) for count in (2, 3, 5, 10))],
    "slower": [Way("ddpm", steps) for steps in (50, 100, 250)],
    "fast": [
        *(Way("ddim", *walk, 1.0) for walk in ((10, 2, 3), (10, 2, 5), (15, 3, 5), (20, 2, 5))),
        *(Way("ddim", *walk, 0.5) for walk in ((10, 2, 5), (20, 2, 5))),
        *(Way("dpm_solver", *walk) for walk in ((10, 2, 5), (15, 3, 5), (20, 2, 5))),
    ],
}
"""More calls by resampling, more calls by smaller steps, and few calls by few resampled steps."""


@dataclass(frozen=True)
class Result:
    """The results of a way.

    Attributes:
        figures: name -> a value for each scene.
        exact: whether the known pixels of each scene are unchanged.
        seconds: for all scenes.
    """

    figures: dict[str, list[float]]
    exact: list[bool]
    seconds: float

    def __len__(self) -> int:
        return len(self.exact)

    def first(self, count: int) -> Figures:
        """Return the figures of the first `count` scenes."""
        return {name: torch.tensor(values[:count], dtype=torch.float64) for name, values in self.figures.items()}


@dataclass(frozen=True)
class Point:
    """A way compared with the full schedule.

    Attributes:
        count: number of scenes it was measured on.
        difference: to the full schedule, on the common scenes.
        seconds: for one scene.
    """

    way: Way
    calls: int
    count: int
    figures: Summary
    difference: Summary
    exact: bool
    seconds: float

    @property
    def as_good(self) -> bool:
        """True if no figure is worse than the full schedule's by more than `MARGIN` standard errors."""
        return all(advantage(name, values) >= -MARGIN for name, values in self.difference.items())


class RePaintStudy:
    """Results by way, in a JSON file that is written after each batch.

    Args:
        editor: its settings are changed by each way; scene i has the noise of their seed plus i.
        scenes: items of `ldm.toyworld.scenes.HoleScenes`.
        about: what the results depend on, for JSON.
        file: earlier results of the same networks and scenes, if it exists.
        batch: number of scenes filled at a time.

    Raises:
        UserError: the file contains something else.
    """

    def __init__(
        self,
        editor: RePaint,
        distances: Distances,
        scenes: Dataset[Mapping[str, Tensor]],
        about: Mapping[str, Any],
        file: Path,
        batch: int,
    ):
        self.editor, self.distances, self.scenes, self.batch = editor, distances, scenes, batch
        self.results = KeptResults(file, Result, about, "a RePaint study")

    def result(self, way: Way, count: int) -> Result:
        """Return the result on the first `count` scenes or more, computing what is not in the file."""
        name = str(way)
        found = self.results[name] if name in self.results else Result({}, [], 0.0)
        calls = way.calls(self.editor.settings)
        with tqdm(total=count, initial=min(len(found), count), desc=name, unit=" images", disable=None) as bar:
            bar.unit_scale = True  # shortens numbers to three digits
            while len(found) < count:
                indices = range(len(found), min(len(found) + self.batch, count))
                found = self.results[name] = self._add(
                    found, way, indices, partial(_advance, bar, len(indices) / calls)
                )
        return found

    def _add(self, found: Result, way: Way, indices: Sequence[int], callback: Callback) -> Result:
        settings = way.settings(self.editor.settings)
        items = [self.scenes[i] for i in indices]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("image", "mask")}
        began = time.perf_counter()
        pictures, exact = fill(self.editor, settings, batch, [settings.seed + i for i in indices], callback)
        seconds = time.perf_counter() - began
        figures = measure(pictures, batch, self.distances)
        return Result(
            figures={name: found.figures.get(name, []) + values.tolist() for name, values in figures.items()},
            exact=found.exact + exact.tolist(),
            seconds=found.seconds + seconds,
        )

    def point(self, way: Way, count: int, full: Result) -> Point:
        """Compare a way on the first `count` scenes with the full schedule's result."""
        result = self.result(way, count)
        figures = result.first(count)
        return Point(
            way=way,
            calls=way.calls(self.editor.settings),
            count=count,
            figures=summary(figures),
            difference=difference(figures, full.first(len(full))),
            exact=all(result.exact[:count]),
            seconds=result.seconds / len(result),
        )


def _advance(bar: tqdm, share: float, *_: Any) -> None:
    bar.update(share)


def cheapest(points: Sequence[Point], full: Point) -> Point | None:
    """Return the point with the fewest calls that is as good as the full schedule, within `SHARE` of its calls."""
    good = [point for point in points if point.as_good and point.calls <= SHARE * full.calls]
    return min(good, key=lambda point: (point.calls, point.figures[DISTANCE][0]), default=None)


def repaint_table(curves: Mapping[str, Sequence[Point]], full: Point) -> str:
    """Format points as a Markdown table: figures, and differences to the full schedule on the common scenes."""
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


def plot_repaint(curves: Mapping[str, Sequence[Point]], full: Point, title: str, file: Path) -> None:
    """Write a PNG of feature distance and PSNR against network calls, with standard errors.

    A band shows the full schedule and `MARGIN` standard errors around it. Curves are drawn as lines, except `fast`,
    whose points do not form one curve and are grouped by sampler.
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
