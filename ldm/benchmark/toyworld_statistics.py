"""The columns of the benchmark on ToyWorld: each a statistic of a row's measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from ldm.benchmark.report import Column
from ldm.benchmark.toyworld_figures import Features
from ldm.evaluation.bootstrap import Estimate, bootstrap
from ldm.evaluation.copy_paste import copy_paste_score
from ldm.evaluation.frechet import fit, frechet
from ldm.evaluation.metrics import pooled_psnr
from ldm.studies.judging import HEADS, Figures

RESAMPLES = 300

COLUMNS = [
    Column("fid", "FID of the hole", "lower", 1),
    Column("fid_whole", "FID of the picture", "lower", 1),
    Column("quality", "Quality Score", "higher", 1),
    Column("clip", "CLIP score", "higher", 1),
    *(Column(head, f"{head}, %", "higher", 1) for head in HEADS),
    Column("all", "all three, %", "higher", 1),
    Column("blob", "... in blob-shaped holes, %", "higher", 1),
    Column("pose", "copied pose, %", "lower", 1),
    Column("pixels", "copied pixels, %", "lower", 1),
    Column("background", "background, dB", "higher", 1),
]


@dataclass(frozen=True)
class Found:
    """The measurements of a row, item by item.

    Attributes:
        figures: those of `toyworld_figures.figures` for box-shaped holes; `quality`; `blob`, which is edit/all for
            blob-shaped holes.
        features: of the pictures and their holes.
        pictures: after compositing.
    """

    figures: Figures
    features: Features
    pictures: Sequence[Image.Image]


class Statistic(NamedTuple):
    """The statistic of a column.

    Attributes:
        needs: the figure that it is computed from.
        of: measurements and indices of items -> value.
    """

    needs: str
    of: Callable[[Found, Tensor], float]


def statistics(real: Features, pastes: Figures) -> dict[str, Statistic]:
    """Return the statistic of each column, by key.

    Args:
        real: features of real scenes.
        pastes: figures of each exemplar pasted into its hole.
    """
    references = [fit(features) for features in real]
    return {
        "fid": Statistic("quality", lambda found, i: frechet(*fit(found.features.holes[i]), *references[0])),
        "fid_whole": Statistic("quality", lambda found, i: frechet(*fit(found.features.whole[i]), *references[1])),
        "quality": _mean("quality"),
        "clip": _mean("clip score"),
        **{head: _mean(f"edit/{head}", 100) for head in (*HEADS, "all")},
        "blob": _mean("blob", 100),
        **{name: _copying(name, pastes[name]) for name in ("pose", "pixels")},
        "background": Statistic("background", lambda found, i: pooled_psnr(found.figures["background"][i])),
    }


def _mean(name: str, factor: float = 1.0) -> Statistic:
    return Statistic(name, lambda found, i: factor * found.figures[name][i].double().mean().item())


def _copying(name: str, pastes: Tensor) -> Statistic:
    return Statistic(name, lambda found, i: copy_paste_score(found.figures[name][i], pastes[i]))


def estimates(found: Found, columns: Mapping[str, Statistic]) -> dict[str, Estimate]:
    """Estimate every column that the row has figures for, with its interval."""
    return {
        key: bootstrap(partial(column.of, found), len(found.figures[column.needs]), resamples=RESAMPLES)
        for key, column in columns.items()
        if column.needs in found.figures
    }


def difference(columns: Mapping[str, Statistic], found: Found, against: Found, key: str) -> Estimate:
    """Estimate the difference of a column between two rows over the same scenes."""

    def statistic(i: Tensor) -> float:
        return columns[key].of(found, i) - columns[key].of(against, i)

    return bootstrap(statistic, len(found.figures[columns[key].needs]), resamples=RESAMPLES)
