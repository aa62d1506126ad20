import json
import time
from pathlib import Path

import numpy as np
import pytest

from ldm.samplers.repaint import LONGEST, jump_schedule, network_calls
from ldm.utils.errors import UserError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "repaint_schedules.npz")
PARAMS = json.loads(str(GOLDEN["config"]))["jump_params"]
SHORT = {"t_T": 12, "jump_length": 4, "jump_n_sample": 3}


@pytest.mark.parametrize("k", [k for k, params in enumerate(PARAMS) if params["jump_length"] < params["t_T"]])
def test_the_schedules_are_the_originals(k):
    assert jump_schedule(**PARAMS[k]) == GOLDEN[f"jump_{k}"].tolist()


def test_the_papers_schedule():
    times = jump_schedule(250, 10, 10)
    assert times[0] == 249 and times[-1] == -1
    assert network_calls(times) == 2410
    assert len(times) - 1 - network_calls(times) == 2160


@pytest.mark.parametrize("t_T", [1, 2, 7])
def test_without_resampling_a_walk_goes_straight_down(t_T):
    assert jump_schedule(t_T, 10, 1) == list(range(t_T - 1, -2, -1))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"t_T": 0}, "steps 0: expected a whole number, 1 or more"),
        ({"t_T": 2.5}, "steps 2.5: expected a whole number"),
        ({"jump_length": 0}, "jump_length 0: expected a whole number, 1 or more"),
        ({"jump_n_sample": -1}, "jump_n_sample -1: expected"),
        ({"n_sample": 0}, "n_sample 0: expected"),
        ({"jump_length": 12}, "jump_length 12: expected less than the 12 steps"),
        ({"jump2_length": 20, "jump2_n_sample": 2}, "jump2_length 20: expected less than the 12 steps"),
        ({"jump3_n_sample": True}, "jump3_n_sample True: expected"),
        ({"start_resampling": 0}, "start_resampling 0: expected"),
    ],
)
def test_schedules_that_cannot_be(wrong, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        jump_schedule(**{**SHORT, **wrong})


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
    with pytest.raises(UserError, match="takes more than 1,000,000 with all its jumps: expected smaller n_sample, ju"):
        jump_schedule(**{**SHORT, **endless})
    assert time.process_time() - begin < 10


def test_the_longest_walk():
    assert len(jump_schedule(LONGEST, 1, 1)) == LONGEST + 1


def test_a_walk_that_is_asked_for_again_is_no_other_callers():
    jump_schedule(**SHORT).clear()
    assert jump_schedule(**SHORT) is not jump_schedule(**SHORT)
    assert jump_schedule(**SHORT)[0] == 11
    with pytest.raises(UserError, match="n_sample True: expected a whole number"):
        jump_schedule(**SHORT | {"n_sample": 1}, jump2_n_sample=True)  # 1 and True are one to a cache
