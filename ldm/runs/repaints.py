"""Files of filled holes, `results/`, `source/`, `grid/` and optionally animations; and estimates of a run's time."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ldm.editors import compose
from ldm.editors.repaint import RePaint, RePaintResult
from ldm.runs.outputs import labelled_row
from ldm.utils.animation import save_gif
from ldm.utils.contact_sheet import fit_cell
from ldm.utils.png import save_png

FRAMES = 40
SIDE = 256  # pixels of an animated picture

Callback = Callable[[int, int, Tensor, Tensor], None]


class Film:
    """A callback of `RePaint` that keeps the predicted clean samples of some network calls, evenly spaced."""

    def __init__(self, calls: int):
        count = min(calls, FRAMES)
        self.wanted = {round(k * (calls - 1) / max(count - 1, 1)) for k in range(count)}
        self.kept: list[Tensor] = []

    def __call__(self, i: int, t: int, x: Tensor, x0: Tensor) -> None:
        if i in self.wanted:
            self.kept.append(x0.float().cpu())


class _Measured(Exception):
    pass


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the warnings of a repeated step, which the run itself logs."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def seconds_per_call(fill: Callable[[Callback], object]) -> float:
    """Measure the seconds of a network call and the step around it.

    Args:
        fill: starts filling a hole with the given callback; stopped after the second call, since the first warms up.
    """
    ends = [time.perf_counter()]

    def callback(i: int, t: int, x: Tensor, x0: Tensor) -> None:
        x.sum().item()  # waits for the GPU
        ends.append(time.perf_counter())
        if i == 1:
            raise _Measured

    with suppress(_Measured), _without_warnings():
        fill(callback)
    return ends[-1] - ends[-2]


def duration(seconds: float) -> str:
    """Format a duration for people: "8 s", "3 min 20 s", "1 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def save_repaint(
    result: RePaintResult, image: Image.Image, folder: Path, name: str, record: Mapping[str, Any]
) -> list[Path]:
    """Write the filled versions of `image`, and return all paths, first `results/<name>_<seed>.png` of each sample.

    Args:
        record: stored in each picture together with the settings and the picture's own seed.
    """
    stem = f"{name}_{result.seeds[0]}"
    whole = {**record, **asdict(result.settings)}
    paths = []

    def save(picture: Image.Image, path: Path, settings: Mapping[str, Any]) -> None:
        paths.append(path)
        save_png(picture, path, settings)

    for picture, seed in zip(result.images, result.seeds, strict=True):
        own = {**record, **asdict(replace(result.settings, seed=seed, n_samples=1))}
        save(picture, folder / "results" / f"{name}_{seed}.png", own)
    inputs = {"image": image, "mask": result.mask, "masked": result.masked}
    for kind, picture in inputs.items():
        save(picture, folder / "source" / f"{stem}_{kind}.png", whole)
    filled = [(f"seed {seed}", picture) for seed, picture in zip(result.seeds, result.images, strict=True)]
    save(labelled_row([*inputs.items(), *filled]), folder / "grid" / f"grid-{stem}.png", whole)
    return paths


def save_films(
    film: Film, editor: RePaint, image: Image.Image, mask: Tensor, result: RePaintResult, folder: Path, name: str
) -> list[Path]:
    """Write one GIF for each sample, `process/<name>_<seed>.gif`, that shows how the hole of `image` was filled.

    It shows the masked picture, then the film's predicted clean samples, composited like the result, and finally the
    result.

    Args:
        mask: (1, 1, H, W), the hole.
    """
    with _without_warnings():
        view = compose.choose_view(mask, result.settings, editor.model.image_size)
    paths = []
    for row, (picture, seed) in enumerate(zip(result.images, result.seeds, strict=True)):
        frames = [result.masked]
        for x0 in film.kept:
            edited = view.from_model(editor.decode(x0[row : row + 1]))
            frames += compose.composite_into(edited, image, mask, view, result.settings)
        paths.append(folder / "process" / f"{name}_{seed}.gif")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        save_gif([fit_cell(frame, SIDE) for frame in [*frames, picture]], paths[-1])
    return paths
