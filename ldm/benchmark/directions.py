"""What a paper says that a change does, and whether it does so here."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ldm.evaluation.bootstrap import Estimate
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

SIGNS = {"rises": 1, "falls": -1}
REPRODUCED, REFUTED, UNDECIDED = "reproduced", "not reproduced", "undecided"


@dataclass(frozen=True)
class Direction:
    """The claim that some metrics rise or fall from one row to another.

    Attributes:
        name: of the change.
        row, against: keys of rows, with the change and without.
        claims: a column's key -> rises or falls.
    """

    name: str
    row: str
    against: str
    claims: Mapping[str, str]

    def __post_init__(self):
        for metric, way in self.claims.items():
            if way not in SIGNS:
                raise UserError(f"direction {self.name}: {metric} {way!r}, expected one of {', '.join(SIGNS)}")


def check_directions(directions: Collection[Direction], rows: Collection[str], columns: Collection[str]) -> None:
    """
    Raises:
        UserError: one is of a row or a column that is not there.
    """
    for direction in directions:
        for key, known in ((direction.row, rows), (direction.against, rows), *((c, columns) for c in direction.claims)):
            if key not in known:
                raise UserError(f"direction {direction.name}: no {key!r}; {nearest(key, known)}")


@dataclass(frozen=True)
class Verdict:
    """Whether a direction is reproduced: all of its metrics move as claimed, and no interval of a difference holds 0.

    Attributes:
        differences: a column's key -> that of the rows, with its interval.
        single: of each metric alone.
    """

    direction: Direction
    differences: Mapping[str, Estimate]
    single: Mapping[str, str]

    @property
    def overall(self) -> str:
        return max(self.single.values(), key=(REPRODUCED, UNDECIDED, REFUTED).index)


def judge_direction(direction: Direction, difference: Callable[[str], Estimate]) -> Verdict:
    """
    Args:
        difference: of a metric, by its key.
    """
    differences = {metric: difference(metric) for metric in direction.claims}
    single = {metric: decide(way, differences[metric]) for metric, way in direction.claims.items()}
    return Verdict(direction, differences, single)


def decide(way: str, difference: Estimate) -> str:
    """Whether a metric that `rises` or `falls` does, by its difference: undecided where the interval holds 0."""
    low, high = sorted(SIGNS[way] * bound for bound in (difference.low, difference.high))
    return REPRODUCED if low > 0 else REFUTED if high < 0 else UNDECIDED


def sentence(verdict: Verdict, titles: Mapping[str, str]) -> str:
    """In words; `titles` are the columns'."""
    parts = []
    for metric, way in verdict.direction.claims.items():
        found = verdict.differences[metric]
        interval = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        parts.append(f"{titles[metric]} {way}: {interval}, {verdict.single[metric]}")
    return f"**{verdict.direction.name}: {verdict.overall}.** {'; '.join(parts)}"
