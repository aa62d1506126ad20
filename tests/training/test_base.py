"""The optimizer and its learning rate, which all trainings share."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ldm.training.base import Optimisation, Training

OPTIMISATION = Optimisation(learning_rate=0.5, weight_decay=0.1, warmup_steps=4, cooldown=0.4, seed=0)


class Parts(Training):
    def __init__(self):
        super().__init__(OPTIMISATION)
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def optimizer(max_steps: int, step: int = 0):
    training = Parts()
    training.trainer = SimpleNamespace(max_steps=max_steps, global_step=step)
    made = training.configure_optimizers()["optimizer"]
    training.optimizers = lambda: made
    return training, made


def test_matrices_decay_and_vectors_do_not():
    training, adamw = optimizer(10)
    decayed, others = adamw.param_groups
    assert decayed["params"] == [training.conv.weight] and decayed["weight_decay"] == 0.1
    assert {id(p) for p in others["params"]} == {
        id(p) for p in (training.conv.bias, training.norm.weight, training.norm.bias, training.token)
    }
    assert others["weight_decay"] == 0


def test_the_rate_rises_stays_and_falls():
    training, _ = optimizer(20)
    rates = [training.rate(step) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[11] == 1.0
    assert rates[12:] == pytest.approx([k / 8 for k in range(8, 0, -1)])


def test_a_prolonged_run_goes_on_at_the_rate_of_its_new_length():
    training, adamw = optimizer(20, step=10)
    for group in adamw.param_groups:
        group["lr"] = 0.125  # as the checkpoint has it, of a run of 10 steps
    training.on_train_start()
    assert [group["lr"] for group in adamw.param_groups] == [0.5, 0.5]
