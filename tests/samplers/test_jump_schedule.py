import json
from pathlib import Path

import numpy as np
import pytest

from ldm.samplers.repaint import jump_schedule, network_calls
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
