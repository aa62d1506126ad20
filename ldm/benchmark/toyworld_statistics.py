"""The columns of the benchmark on ToyWorld: each a function of what was measured of a row's items."""

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
    """What was measured of a row, item by item.

    Attributes:
        figures: of the edits of box-shaped holes, see `toyworld_figures.figures`; `quality`; `blob`, which is edit/all
            of the blob-shaped ones.
        features: of the pictures and their holes.
        pictures: as a user gets them.
    """

    figures: Figures
    features: Features
    pictures: Sequence[Image.Image]


class Statistic(NamedTuple):
    """A column.

    Attributes:
        needs: the figure that a row has to have.
        of: the column's value, of the items with some indices.
    """

    needs: str
    of: Callable[[Found, Tensor], float]


def statistics(real: Features, pastes: Figures) -> dict[str, Statistic]:
    """By the column's key.

    Args:
        real: features of real scenes.
        pastes: figures of each exemplar pasted into its hole.
    """
    references = [fit(features) for features in real]

    def mean(name: str, factor: float = 1.0) -> Statistic:
        return Statistic(name, lambda found, i: factor * found.figures[name][i].double().mean().item())

    def copying(name: str) -> Statistic:
        return Statistic(name, lambda found, i: copy_paste_score(found.figures[name][i], pastes[name][i]))

    return {
        "fid": Statistic("quality", lambda found, i: frechet(*fit(found.features.holes[i]), *references[0])),
        "fid_whole": Statistic("quality", lambda found, i: frechet(*fit(found.features.whole[i]), *references[1])),
        "quality": mean("quality"),
        "clip": mean("clip score"),
        **{head: mean(f"edit/{head}", 100) for head in (*HEADS, "all")},
        "blob": mean("blob", 100),
        **{name: copying(name) for name in ("pose", "pixels")},
        "background": Statistic("background", lambda found, i: pooled_psnr(found.figures["background"][i])),
    }


def estimates(found: Found, columns: Mapping[str, Statistic]) -> dict[str, Estimate]:
    """Every column that the row has figures for, with its interval."""
    return {
        key: bootstrap(partial(column.of, found), len(found.figures[column.needs]), resamples=RESAMPLES)
        for key, column in columns.items()
        if column.needs in found.figures
    }


def difference(columns: Mapping[str, Statistic], found: Found, against: Found, key: str) -> Estimate:
    """Of a column between two rows, over the same scenes."""

    def of(i: Tensor) -> float:
        return columns[key].of(found, i) - columns[key].of(against, i)

    return bootstrap(of, len(found.figures[columns[key].needs]), resamples=RESAMPLES)
