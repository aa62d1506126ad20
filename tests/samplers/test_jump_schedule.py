import json
import time
from pathlib import Path

import numpy as np
import pytest

from ldm.samplers.repaint import LONGEST, network_calls
from tests.refusals import refused
from tests.samplers.walks import walk

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "repaint_schedules.npz")
PARAMS = json.loads(str(GOLDEN["config"]))["jump_params"]
SHORT = {"t_T": 12, "jump_length": 4, "jump_n_sample": 3}


@pytest.mark.parametrize("k", [k for k, params in enumerate(PARAMS) if params["jump_length"] < params["t_T"]])
def test_the_schedules_are_the_originals(k):
    assert walk(**PARAMS[k]) == GOLDEN[f"jump_{k}"].tolist()


def test_the_papers_schedule():
    times = walk(250, 10, 10)
    assert times[0] == 249 and times[-1] == -1
    assert network_calls(times) == 2410
    assert len(times) - 1 - network_calls(times) == 2160


@pytest.mark.parametrize("t_T", [1, 2, 7])
def test_without_resampling_a_walk_goes_straight_down(t_T):
    assert walk(t_T, 10, 1) == list(range(t_T - 1, -2, -1))


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        ({"t_T": 0}, ("steps", 0)),
        ({"t_T": 2.5}, ("steps", 2.5)),
        ({"jump_length": 0}, ("jump_length", 0)),
        ({"jump_n_sample": -1}, ("jump_n_sample", -1)),
        ({"n_sample": 0}, ("n_sample", 0)),
        ({"jump_length": 12}, ("jump_length", 12)),
        ({"jump2_length": 20, "jump2_n_sample": 2}, ("jump2_length", 20, 12)),
        ({"jump3_n_sample": True}, ("jump3_n_sample", True)),
        ({"start_resampling": 0}, ("start_resampling", 0)),
    ],
)
def test_schedules_that_cannot_be(wrong, wanted):
    with refused(wanted):
        walk(**{**SHORT, **wrong})


@pytest.mark.parametrize(
    "endless",
    [
        {"jump_n_sample": 10**6},
        {"n_sample": 10**9},
        {"t_T": 10**12},
        {"t_T": 10**6 + 1, "jump_n_sample": 1},
        {"t_T": 4 * 10**5, "jump_length": 1, "jump3_n_sample": 2},  # whose longer jumps restore many shorter ones
        {"jump2_n_sample": 10**9, "jump3_n_sample": 10**9},
    ],
)
def test_an_endless_walk_is_refused_at_once(endless):
    begin = time.process_time()
    with refused("1,000,000", "n_sample"):
        walk(**{**SHORT, **endless})
    assert time.process_time() - begin < 10


def test_the_longest_walk():
    assert len(walk(LONGEST, 1, 1)) == LONGEST + 1


def test_a_walk_that_is_asked_for_again_is_no_other_callers():
    walk(**SHORT).clear()
    assert walk(**SHORT) is not walk(**SHORT)
    assert walk(**SHORT)[0] == 11
    with refused("jump2_n_sample", True):
        walk(**SHORT | {"n_sample": 1}, jump2_n_sample=True)  # 1 and True are one to a cache
