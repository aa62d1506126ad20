import logging
from types import SimpleNamespace

import pytest
import torch

from ldm.runs.repaints import FRAMES, Film, duration, seconds_per_call

X = torch.zeros(1, 3, 2, 2)


@pytest.mark.parametrize("calls", [1, 2, 7, FRAMES, 41, 2410])
def test_a_film_is_spread_evenly_from_the_first_call_to_the_last(calls):
    film = Film(calls)
    for i in range(calls):
        film(i, 0, X, X + i)
    moments = [int(x0[0, 0, 0, 0]) for x0 in film.kept]
    assert len(moments) == min(calls, FRAMES)
    assert moments[0] == 0 and moments[-1] == calls - 1
    gaps = {b - a for a, b in zip(moments, moments[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.fixture
def clock(monkeypatch):
    """Stands for `time` where calls are measured; it goes only when a test says so."""
    clock = SimpleNamespace(now=100.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr("ldm.runs.repaints.time", clock)
    return clock


def test_the_second_call_is_measured_and_the_third_never_made(caplog, clock):
    made = []

    def fill(callback):
        logging.getLogger("ldm.test").warning("large picture")  # which the run itself will say
        for i, seconds in enumerate((3, 1, 5)):
            clock.now += seconds
            made.append(i)
            callback(i, 0, X, X)

    assert seconds_per_call(fill) == 1
    assert made == [0, 1] and not caplog.messages
    logging.getLogger("ldm.test").warning("afterwards")
    assert caplog.messages == ["afterwards"]


def test_a_single_call_is_measured_too(clock):
    def fill(callback):
        clock.now += 3
        callback(0, 0, X, X)

    assert seconds_per_call(fill) == 3


def test_what_goes_wrong_while_measuring_is_seen():
    def fill(callback):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        seconds_per_call(fill)
    assert logging.getLogger("ldm.test").isEnabledFor(logging.WARNING)


@pytest.mark.parametrize(
    "seconds, told",
    [(0.04, "0.0 s"), (8.26, "8.3 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (3899, "1 h 4 min")],
)
def test_durations_as_they_are_said(seconds, told):
    assert duration(seconds) == told
