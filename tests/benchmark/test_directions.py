"""A direction is reproduced if every metric moves as claimed and no interval of a difference holds 0."""

import pytest

from ldm.benchmark.directions import Direction, check_directions, decide, judge_direction, sentence
from ldm.evaluation.bootstrap import Estimate
from tests.refusals import refused


@pytest.mark.parametrize(
    "way, low, high, expected",
    [
        ("rises", 0.1, 2, "reproduced"),
        ("falls", 0.1, 2, "not reproduced"),
        ("rises", -2, -0.1, "not reproduced"),
        ("falls", -2, -0.1, "reproduced"),
        ("rises", -0.1, 2, "undecided"),
        ("falls", -2, 0, "undecided"),
    ],
)
def test_a_metric_is_decided_by_the_interval_of_its_difference(way, low, high, expected):
    assert decide(way, Estimate((low + high) / 2, low, high, 9)) == expected


@pytest.mark.parametrize(
    "second, expected",
    [((1, 2), "reproduced"), ((-1, 2), "undecided"), ((-2, -1), "not reproduced")],
)
def test_a_direction_is_as_its_weakest_metric(second, expected):
    direction = Direction("+ guidance", "g", "b", {"fid": "falls", "clip": "rises"})
    found = {"fid": Estimate(-3.0, -4.0, -2.0, 9), "clip": Estimate(sum(second) / 2, *map(float, second), 9)}
    verdict = judge_direction(direction, found.__getitem__)
    assert verdict.overall == expected
    told = sentence(verdict, {"fid": "FID", "clip": "CLIP score"})
    assert told.startswith(f"**+ guidance: {expected}.** FID falls: -3.0 [-4.0, -2.0], reproduced; CLIP score rises:")


def test_a_claim_of_another_kind_is_refused():
    with refused("x", "fid", "sinks", "rises", "falls"):
        Direction("x", "a", "b", {"fid": "sinks"})


@pytest.mark.parametrize(
    "direction, wanted",
    [
        (Direction("x", "prior", "baselin", {"fid": "falls"}), ("baselin", "baseline")),
        (Direction("x", "prior", "baseline", {"fld": "falls"}), ("fld", "fid")),
    ],
)
def test_a_direction_of_what_is_not_there_is_refused(direction, wanted):
    with refused("x", wanted):
        check_directions([direction], ["baseline", "prior"], ["fid", "clip"])
