"""Panels of pictures made from the same few validation items, drawn again and again during the training."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from ldm.utils.contact_sheet import contact_sheet
from ldm.utils.files import replacing
from ldm.utils.image import to_pil


class Panel(Callback):
    """A callback that draws `training.pictures` of the first validation items, as PNG files and to the loggers.

    A panel belongs to a validation: the first one at or after each multiple of `every` optimizer steps, and the one
    after the last step, which this callback triggers. It is drawn before the validation ends: in evaluation mode, with
    the validated weights, or their averages if there are any. Only the first process draws; the others wait for it at
    their next collective operation.

    Args:
        every: optimizer steps.
        folder: gets files such as step-000500.png.
        count: number of items.
    """

    def __init__(self, every: int, folder: Path, count: int = 8):
        self.every, self.folder, self.count = every, folder, count

    def on_train_start(self, trainer: pl.Trainer, *_) -> None:
        self.drawn = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # it would anyway, but without a validation

    def on_validation_epoch_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        step = trainer.global_step
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        if step // self.every == self.drawn // self.every and step < trainer.max_steps:
            return
        self.drawn = step
        loader = trainer.val_dataloaders
        batch = loader.collate_fn([loader.dataset[i] for i in range(min(self.count, len(loader.dataset)))])
        batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with trainer.precision_plugin.forward_context():
            columns = training.pictures(batch)  # on the module itself: other processes do not take part
        if not columns:
            return
        sheet = contact_sheet({name: [to_pil(image) for image in column] for name, column in columns.items()})
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / f"step-{step:06d}.png") as file:
            sheet.save(file, format="PNG")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("panel", np.asarray(sheet), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("panel", [sheet], step=step)
