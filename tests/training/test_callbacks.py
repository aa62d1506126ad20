from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
from torch import nn

from ldm.training.callbacks import LastCheckpoint, MovingAverage


class Half(pl.LightningModule):
    """One layer is trained, the other is not."""

    def __init__(self):
        super().__init__()
        self.trained, self.frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)


def test_the_averages_follow_the_weights_to_their_device():
    training, average = Half(), MovingAverage(0.9)
    average.setup(None, training, "fit")
    training.to("meta")  # the only other device that every machine has
    average.on_fit_start(None, training)
    assert all(parameter.is_meta for parameter in average.averaged.parameters())


def test_weights_that_are_not_trained_are_not_held_twice():
    training, average = Half(), MovingAverage(0.9)
    average.setup(None, training, "fit")
    average.on_fit_start(None, training)
    assert average.averaged.frozen.weight.data_ptr() == training.frozen.weight.data_ptr()

    frozen, first = training.frozen.weight.clone(), training.trained.weight.clone()
    for step in (1, 2):  # the first update takes the weights as they are, the second averages at 1 - 2 / 11
        with torch.no_grad():
            training.trained.weight += 1
        average.on_train_batch_end(SimpleNamespace(global_step=step), training, None, None, 0)
    torch.testing.assert_close(average.averaged.trained.weight, first + 1 + 9 / 11)
    average.on_validation_epoch_start(None, training)
    torch.testing.assert_close(training.trained.weight, first + 1 + 9 / 11)
    average.on_validation_epoch_end(None, training)
    torch.testing.assert_close(training.trained.weight, first + 2)
    assert torch.equal(average.averaged.frozen.weight, frozen) and torch.equal(training.frozen.weight, frozen)


def saved_at(tmp_path: Path, every: timedelta, max_steps: int = 3, accumulate: int = 2) -> list[tuple[int, int]]:
    """The (step, batch) after which a training of at most 8 batches writes its checkpoint."""
    trainer = SimpleNamespace(global_step=0, max_steps=max_steps, should_stop=False, is_global_zero=True)
    trainer.strategy = SimpleNamespace(broadcast=lambda value: value)
    trainer.save_checkpoint = lambda path: path.write_text(f"{trainer.global_step} {batch}")
    last, found = tmp_path / "last.ckpt", []
    callback = LastCheckpoint(last, every)
    callback.on_train_start(trainer)
    for batch in range(1, max_steps * accumulate + 1):
        trainer.global_step = batch // accumulate
        callback.on_train_batch_end(trainer)
        if last.exists():
            found.append(tuple(map(int, last.read_text().split())))
            last.unlink()
    assert not list(tmp_path.iterdir())  # no temporary file is left
    return found


def test_a_checkpoint_is_written_after_whole_steps_and_after_the_last(tmp_path):
    assert saved_at(tmp_path, timedelta(0)) == [(1, 2), (2, 4), (3, 6)]
    assert saved_at(tmp_path, timedelta(hours=1)) == [(3, 6)]
