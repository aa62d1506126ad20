import math

import pytest
import torch

from ldm.training.loop.step_losses import DECAY, Smoothed, StepLosses


def test_losses_are_means_over_the_micro_batches_of_each_step():
    losses = StepLosses(step=7)
    ended = [losses.add(step, torch.tensor(loss)) for step, loss in [(7, 1.0), (8, 3.0), (8, 5.0), (9, 9.0)]]
    assert ended == [False, True, False, True]
    assert losses.take().tolist() == [2.0, 7.0] and losses.step == 9
    assert losses.take().tolist() == []


def test_the_smoothed_loss_is_a_mean_from_the_first_value_on():
    smoothed = Smoothed()
    assert math.isnan(smoothed.value)
    for _ in range(3):
        smoothed.add(4.0)
        assert smoothed.value == pytest.approx(4.0)
    smoothed.add(math.nan)
    smoothed.add(math.inf)
    assert smoothed.value == pytest.approx(4.0) and smoothed.count == 3
    for _ in range(1000):
        smoothed.add(0.0)
    smoothed.add(1.0)
    assert smoothed.value == pytest.approx(1 - DECAY, rel=1e-3)
