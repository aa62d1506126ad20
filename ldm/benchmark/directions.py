"""Claims of a paper about the direction of a change, and verdicts on whether it is reproduced."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ldm.evaluation.bootstrap import Estimate
from ldm.utils.checked import checked
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

SIGNS = {"rises": 1, "falls": -1}
REPRODUCED, REFUTED, UNDECIDED = "reproduced", "not reproduced", "undecided"


@checked
class Direction:
    """The claim that some metrics rise or fall from one row to another.

    Attributes:
        name: of the change.
        row, against: keys of the rows with and without the change.
        claims: column key -> `rises` or `falls`.
    """

    name: str
    row: str
    against: str
    claims: Mapping[str, str]

    def __post_init__(self):
        for metric, claim in self.claims.items():
            if claim not in SIGNS:
                raise UserError(f"direction {self.name}: {metric} {claim!r}: expected one of {', '.join(SIGNS)}")


def check_directions(directions: Collection[Direction], rows: Collection[str], columns: Collection[str]) -> None:
    """Check that the rows and columns of directions exist.

    Raises:
        UserError: one does not.
    """
    for direction in directions:
        for key, known in ((direction.row, rows), (direction.against, rows), *((c, columns) for c in direction.claims)):
            if key not in known:
                raise UserError(f"direction {direction.name}: unknown {key!r}; {nearest(key, known)}")


@dataclass(frozen=True)
class Verdict:
    """The verdict on a direction: reproduced if all metrics move as claimed and no difference's interval contains 0.

    Attributes:
        differences: column key -> difference between the rows, with its interval.
        single: column key -> verdict on this metric alone.
    """

    direction: Direction
    differences: Mapping[str, Estimate]
    single: Mapping[str, str]

    @property
    def overall(self) -> str:
        """The worst of the single verdicts."""
        return max(self.single.values(), key=(REPRODUCED, UNDECIDED, REFUTED).index)


def judge_direction(direction: Direction, difference: Callable[[str], Estimate]) -> Verdict:
    """Judge each claim of a direction.

    Args:
        difference: column key -> difference between the two rows.
    """
    differences = {metric: difference(metric) for metric in direction.claims}
    single = {metric: decide(claim, differences[metric]) for metric, claim in direction.claims.items()}
    return Verdict(direction, differences, single)


def decide(claim: str, difference: Estimate) -> str:
    """Decide whether a metric `rises` or `falls` as claimed: undecided if the interval contains 0."""
    low, high = sorted(SIGNS[claim] * bound for bound in (difference.low, difference.high))
    return REPRODUCED if low > 0 else REFUTED if high < 0 else UNDECIDED


def sentence(verdict: Verdict, titles: Mapping[str, str]) -> str:
    """Return a verdict as a sentence; `titles` are those of the columns, by key."""
    parts = []
    for metric, claim in verdict.direction.claims.items():
        found = verdict.differences[metric]
        interval = f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
        parts.append(f"{titles[metric]} {claim}: {interval}, {verdict.single[metric]}")
    return f"**{verdict.direction.name}: {verdict.overall}.** {'; '.join(parts)}"
