import math
import re

import pytest
import torch

from ldm.training.loop.guard import SKIPS, WARM_UP, Guard
from tests.refusals import assert_mentions, refusal_of, refused
from tests.training.monitored import Line, fit


def stopped(training, folder, guard=None, **options) -> str:
    return refusal_of(fit, training, [guard or Guard(folder / "last")], folder, **options)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_its_step_is_named(tmp_path, value):
    message = stopped(Line({5: value}), tmp_path, log_every_n_steps=4)
    assert_mentions(message, "step 8", "step 5", value)


def test_every_micro_batch_counts(tmp_path):
    class Third(Line):
        def training_step(self, batch, batch_index):
            return super().training_step(batch, batch_index) * (math.nan if batch_index == 2 else 1)

    assert "the loss of step 2 is nan" in stopped(Third(), tmp_path, accumulate=2)


def test_the_checkpoints_that_exist_are_named(tmp_path):
    (tmp_path / "last").mkdir()
    assert stopped(Line({2: math.nan}), tmp_path).endswith(f"; good checkpoints: the last {tmp_path / 'last'}")
    (tmp_path / "best").mkdir()
    ending = f"; good checkpoints: the last {tmp_path / 'last'}, the best {tmp_path / 'best'}"
    assert stopped(Line({2: math.nan}), tmp_path).endswith(ending)


def test_a_sound_training_goes_on_to_its_end(tmp_path):
    training = Line({step: 0.5 + (step % 7) / 7 for step in range(1, 300)})  # single losses differ by a factor of 3
    assert fit(training, [Guard(tmp_path / "last")], tmp_path, steps=300, validation=0).global_step == 300


def test_a_diverging_loss_stops(tmp_path):
    losses = {step: 0.1 if step <= 200 else 0.1 * 1.2 ** (step - 200) for step in range(1, 301)}
    message = stopped(Line(losses), tmp_path, steps=300, validation=0, log_every_n_steps=1)
    step = int(re.search(r"step (\d+)", message)[1])
    assert 200 < step < 230
    assert_mentions(message, 0.1)


def test_a_loss_that_diverges_within_the_warm_up_is_noticed_at_its_end(tmp_path):
    rise = {step: min(1.6**step, 1e6) for step in range(1, 200)}
    with refused(100, 110):
        fit(Line(losses=rise), [Guard(tmp_path)], tmp_path, steps=200)


def test_how_a_batch_is_accumulated_does_not_change_what_is_watched(tmp_path):
    seen = []
    for accumulate in (1, 4):
        guard = Guard(tmp_path)
        fit(Line(lr=0.0), [guard], tmp_path, steps=120, accumulate=accumulate)
        seen.append(guard.lowest)
    assert seen[0] == pytest.approx(0.25) and seen[1] == pytest.approx(0.25)


def test_a_rise_near_zero_and_one_below_the_beginning_are_no_divergence(tmp_path):
    losses = {step: 1.0 if step <= WARM_UP else 1e-5 if step <= 900 else 0.9 for step in range(1, 1001)}
    fit(Line(losses), [Guard(tmp_path / "last")], tmp_path, steps=1000, validation=0, log_every_n_steps=50)


def test_negative_losses_have_no_factor(tmp_path):
    losses = {step: -1.0 if step <= 150 else 1.0 for step in range(1, 301)}
    fit(Line(losses), [Guard(tmp_path / "last")], tmp_path, steps=300, validation=0)


def test_a_resumed_training_remembers_how_low_the_loss_was():
    guard, other = Guard(None), Guard(None)
    guard.first, guard.lowest = 0.7, 0.1
    other.load_state_dict(guard.state_dict())
    assert (other.first, other.lowest) == (0.7, 0.1)


def test_a_watched_loss_takes_the_place_of_one_that_changes_its_meaning(tmp_path):
    class Joined(Line):
        def training_step(self, batch, batch_index):
            loss = super().training_step(batch, batch_index)
            late = 100.0 if self.global_step > 150 else 0.0
            return {"loss": loss + late, "watched": loss}

    losses = dict.fromkeys(range(1, 301), 0.1)
    fit(Joined(losses), [Guard(tmp_path / "last")], tmp_path, steps=300, validation=0)

    class Alone(Joined):
        def training_step(self, batch, batch_index):
            return super().training_step(batch, batch_index)["loss"]

    assert "diverges" in stopped(Alone(losses), tmp_path, steps=300, validation=0)


class Saver(Guard):
    """Checks after one step, as a saver of checkpoints does, which knows nothing of when losses are looked at."""

    def __init__(self, folder, step):
        super().__init__(folder)
        self.at = step

    def on_train_batch_end(self, trainer, *rest):
        super().on_train_batch_end(trainer, *rest)
        if trainer.global_step == self.at:
            self.check(trainer)


def test_a_check_looks_at_once(tmp_path):
    message = stopped(Line({3: math.nan}), tmp_path, Saver(tmp_path, 3), log_every_n_steps=50)
    assert_mentions(message, "step 3", "nan")


def test_weights_that_are_not_finite_are_found_before_any_loss_tells(tmp_path):
    class Steep(Line):
        def training_step(self, batch, batch_index):
            loss = super().training_step(batch, batch_index)
            root = (self.w * 0).sqrt()  # 0, with an infinite slope
            return loss + root if self.global_step == 2 else loss

    message = stopped(Steep(), tmp_path, Saver(tmp_path, 3), log_every_n_steps=50)
    assert_mentions(message, "step 3", "w")
    assert_mentions(stopped(Steep(), tmp_path, steps=3, log_every_n_steps=50), "w")  # at the end of the training


class Skipping(Guard):
    """With a scaler in the trainer, which CPU trainings do not have."""

    def on_train_start(self, trainer, *rest):
        super().on_train_start(trainer, *rest)
        trainer.precision_plugin.scaler = object()


def test_a_few_steps_that_fp16_skips_are_no_divergence(tmp_path):
    few = dict.fromkeys(range(3, 3 + SKIPS), math.nan)

    class Skipped(Line):
        def on_before_optimizer_step(self, optimizer):
            self.w.grad.nan_to_num_(0)  # the step changes nothing and is counted all the same

    fit(Skipped(few), [Skipping(tmp_path)], tmp_path, steps=50)
    message = stopped(Skipped(few | {3 + SKIPS: math.nan}), tmp_path, Skipping(tmp_path), steps=50)
    assert_mentions(message, f"step {3 + SKIPS}", "nan")


def test_no_step_waits_for_the_device(tmp_path, monkeypatch):
    """Between two looks nothing reads a tensor."""
    read = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, original=original: (read.append(1), original(self, *a))[1]
        )
    guard = Guard(tmp_path)
    trainer = type("T", (), {"global_step": 0, "log_every_n_steps": 50, "accumulate_grad_batches": 2})()
    guard.on_train_start(trainer)
    for step in range(1, 50):
        trainer.global_step = step
        guard.on_train_batch_end(trainer, None, {"loss": torch.ones(())})
    assert not read
