"""The progress of a training: a bar over the optimizer steps, or lines in a log file."""

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from ldm.training.loop.step_losses import Smoothed, StepLosses, loss_of

LINE_EVERY = 60  # seconds, where there is no terminal to draw a bar on


class TrainingProgress(ProgressBar):
    """A callback that shows and logs smoothed loss, learning rate, samples/s and the share of time waiting for data.

    Every `log_every_n_steps` optimizer steps it logs `train/lr`, `train/samples_per_second` (of all processes) and
    `train/data_wait` (of this one): the share of the time since the last log that passed between the end of a batch and
    the start of the next, waiting for the loader. On a GPU this is an upper bound, as its queue may not be empty yet.
    Validations are excluded from both. Values are logged under the number of optimizer steps done.

    Only the first process shows anything, on stderr: a bar on a terminal, elsewhere a line per minute; and after each
    validation a line with its metrics.

    Args:
        show: Lightning's `enable_progress_bar`, which its Trainer does not accept along with a custom bar.
    """

    def __init__(self, show: bool = True):
        super().__init__()
        self.show = show

    def disable(self) -> None:
        self.show = False

    def enable(self) -> None:
        self.show = True

    def print(self, *words: object, **_) -> None:
        if self.show:
            tqdm.write(" ".join(map(str, words)), file=sys.stderr)

    def setup(self, trainer: pl.Trainer, training: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, training, stage)
        others = [callback for callback in trainer.callbacks if callback is not self]
        trainer.callbacks = [
            *others,
            self,
        ]  # last: work of others after a batch, such as saving, is not waiting for data

    def on_train_start(self, trainer: pl.Trainer, *_) -> None:
        self.losses, self.smoothed = StepLosses(trainer.global_step), Smoothed()
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            disable=None if self.show else True,  # None: disabled if stderr is not a terminal
            dynamic_ncols=True,
            unit="step",
        )
        self.written = -LINE_EVERY
        self._look_again(trainer.global_step)

    def on_train_batch_start(self, *_) -> None:
        self.waited += time.monotonic() - self.since

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, outputs: dict, *_) -> None:
        step = trainer.global_step
        if self.losses.add(step, loss_of(outputs, trainer)):
            self.bar.update(step - self.bar.n)
            if trainer.should_stop or (trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0):
                self._look(trainer, training)
        self.since = time.monotonic()

    def on_validation_start(self, *_) -> None:
        self.paused = time.monotonic()

    def on_validation_epoch_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            training.log("step", float(trainer.global_step), sync_dist=True)

    def on_validation_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.sanity_checking:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        self.print(f"step {trainer.global_step}:", *(f"{name} {value:.4g}" for name, value in sorted(values.items())))
        now = time.monotonic()
        self.looked += now - self.paused
        self.since = now

    def on_train_end(self, *_) -> None:
        self.bar.close()

    def on_exception(self, *_) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _look(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        for loss in self.losses.take().tolist():  # waits for the device, so that the time is of whole steps
            self.smoothed.add(loss)
        step, now = trainer.global_step, time.monotonic()
        elapsed, steps = max(now - self.looked, 1e-9), step - self.looked_at
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        speed, wait = steps * trainer.datamodule.batch_size / elapsed, self.waited / elapsed
        training.log_dict(
            {"step": float(step), "train/lr": lr, "train/samples_per_second": speed, "train/data_wait": wait}
        )
        words = {
            "loss": f"{self.smoothed.value:.4g}",
            "lr": f"{lr:.3g}",
            "samples/s": f"{speed:.3g}",
            "data wait": f"{wait:.0%}",
        }
        self.bar.set_postfix(words, refresh=False)
        if self.bar.disable and now - self.written >= LINE_EVERY:
            left = tqdm.format_interval((trainer.max_steps - step) * elapsed / steps)
            facts = ", ".join(f"{name} {value}" for name, value in words.items())
            self.print(f"step {step} of {trainer.max_steps}: {facts}, {left} left")
            self.written = now
        self._look_again(step)

    def _look_again(self, step: int) -> None:
        self.looked_at, self.waited = step, 0.0
        self.looked = self.since = time.monotonic()
