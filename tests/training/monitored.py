"""A training with one weight, as small as they come, to hang callbacks on."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader


class Line(pl.LightningModule):
    """Fits w to the items; a step's loss can be given instead."""

    seed = 0

    def __init__(self, losses: dict[int, float] | None = None, lr: float = 0.1):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))
        self.losses, self.lr = losses or {}, lr

    def training_step(self, batch, batch_index):
        loss = (self.w - batch).square().mean()
        if self.global_step + 1 in self.losses:  # the step that is being made
            loss = loss * 0 + self.losses[self.global_step + 1]
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch, batch_index):
        self.log("val/loss", (self.w - batch).square().mean())

    def weights(self):
        return self.state_dict()

    def pictures(self, batch):
        shown = batch.view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        return {"item": shown, "weight": torch.full_like(shown, float(self.w))}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Items(pl.LightningDataModule):
    """`batch_size` is the global batch of an optimizer step, as in `ldm.data.datamodule`."""

    def __init__(self, steps: int, accumulate: int = 1, validation: int = 3):
        super().__init__()
        self.batch_size, self.batches, self.count = 2 * accumulate, steps * accumulate, validation

    def train_dataloader(self):
        return DataLoader(torch.full((2 * self.batches,), 0.5), batch_size=2)

    def val_dataloader(self):
        return DataLoader(torch.linspace(-1, 1, self.count), batch_size=2) if self.count else []


def fit(
    training: pl.LightningModule,
    callbacks: list[pl.Callback],
    folder: Path,
    steps: int = 10,
    accumulate: int = 1,
    validation: int = 3,
    ckpt_path: str | None = None,
    **options,
) -> pl.Trainer:
    options = {
        "logger": False,
        "enable_checkpointing": False,
        "val_check_interval": 4 * accumulate,
        "log_every_n_steps": 2,
    } | options
    options.setdefault("enable_progress_bar", any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks))
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        default_root_dir=folder,
        accumulate_grad_batches=accumulate,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(training, datamodule=Items(steps, accumulate, validation), ckpt_path=ckpt_path, weights_only=True)
    return trainer
