from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ldm.training.loop.average import Averages, written_names


class Half(pl.LightningModule):
    """One layer is trained and written, another is written only, a third trained only."""

    def __init__(self):
        super().__init__()
        self.trained, self.beside = nn.Linear(2, 2), nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def weights(self):
        return self.trained.state_dict(prefix="a.") | self.frozen.state_dict(prefix="b.")


def started(decay: float | None = 0.9, dtype: torch.dtype = torch.float32) -> tuple[Half, Averages]:
    training, averages = Half().to(dtype), Averages(decay)
    averages.on_fit_start(None, training)
    averages.on_train_start(SimpleNamespace(global_step=0), training)
    return training, averages


def step(training: Half, averages: Averages, number: int, change: float) -> None:
    with torch.no_grad():
        for parameter in training.parameters():
            parameter += change * parameter.requires_grad
    averages.on_train_batch_end(SimpleNamespace(global_step=number), training, None, None, 0)


@pytest.mark.parametrize("decay", [0.9, 0.15])
def test_the_decay_is_warmed_up(decay):
    training, averages = started(decay)
    expected = training.trained.weight.double()
    for number in (1, 2, 3):
        step(training, averages, number, change=1.0)
        averages.on_train_batch_end(SimpleNamespace(global_step=number), training, None, None, 0)  # accumulates only
        d = min(decay, number / (9 + number))
        expected = d * expected + (1 - d) * training.trained.weight.double()
    torch.testing.assert_close(averages.values["trained.weight"].double(), expected, rtol=1e-6, atol=1e-6)


def test_what_is_trained_and_written_is_averaged_and_nothing_else():
    training, averages = started()
    assert list(averages.values) == ["trained.weight", "trained.bias"]
    step(training, averages, 1, change=1.0)
    weights, rest = averages.weights(training, without=("b.bias",)), averages.remainder(training)
    assert list(weights) == ["a.weight", "a.bias", "b.weight"]
    assert weights["a.weight"].data_ptr() == averages.values["trained.weight"].data_ptr()  # no copy
    assert weights["b.weight"].data_ptr() == training.frozen.weight.data_ptr()
    assert list(rest) == ["trained.weight", "trained.bias", "beside.weight", "beside.bias"]
    assert torch.equal(rest["trained.weight"], training.trained.weight)


def test_the_averages_stand_in_for_the_weights_in_validation():
    training, averages = started()
    step(training, averages, 1, change=1.0)
    own, average = training.trained.weight.clone(), averages.values["trained.weight"].clone()
    place = training.trained.weight.data_ptr()
    averages.on_validation_start(None, training)
    assert torch.equal(training.trained.weight, average) and not torch.equal(own, average)
    averages.on_validation_end(None, training)
    assert torch.equal(training.trained.weight, own) and training.trained.weight.data_ptr() == place


def test_without_a_decay_nothing_is_held_twice():
    training, averages = started(None)
    step(training, averages, 1, change=1.0)
    assert averages.values == {}
    with averages.applied(training):
        weights = averages.weights(training)
    assert weights["a.weight"].data_ptr() == training.trained.weight.data_ptr()
    assert list(averages.remainder(training)) == ["beside.weight", "beside.bias"]


def test_averages_of_half_precision_weights_do_not_stall():
    training, averages = started(0.999, torch.bfloat16)
    before = averages.values["trained.weight"].clone()
    step(training, averages, 10**6, change=0.1)
    moved = averages.values["trained.weight"] - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-4), rtol=0.1, atol=0)
    assert averages.weights(training)["a.weight"].dtype == torch.float32
    with averages.applied(training):
        assert training.trained.weight.dtype == torch.bfloat16


def test_names_are_matched_without_memory_too():
    with torch.device("meta"):
        names = written_names(Half())
    assert names == {
        "trained.weight": "a.weight", "trained.bias": "a.bias", "frozen.weight": "b.weight", "frozen.bias": "b.bias",
    }  # fmt: skip


def test_the_averages_follow_the_weights_to_their_device():
    training, averages = started()
    training.to("meta")  # the only other device that every machine has
    averages.on_fit_start(None, training)
    assert averages.values and all(value.is_meta for value in averages.values.values())
