"""The needs and the plan of a run, known before it starts: parameters, batch, epochs, memory, disk."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from ldm.data.datamodule import DataModule
from ldm.training.loop.average import Averages, written_names
from ldm.utils.errors import UserError
from ldm.utils.sizes import size

FLOAT = 4  # bytes
MOMENTS = 2  # of AdamW, per trained parameter


@dataclass(frozen=True)
class Budget:
    """The bytes that a run needs, computed from shapes alone, without activations.

    Args:
        memory: weights, gradients, the optimizer's moments and averages on each device.
        weights: a file of the run's weights in float32.
        checkpoint: a checkpoint to resume from.
    """

    memory: int
    weights: int
    checkpoint: int


def budget(training: pl.LightningModule, averages: Averages, without: tuple[str, ...] = ()) -> Budget:
    """Compute the budget of a training; see `Checkpoints` for `without`."""
    names, state = written_names(training), training.state_dict()
    trained = {name: p for name, p in training.named_parameters() if p.requires_grad}
    averaged = [p for name, p in trained.items() if averages.decay is not None and name in names]
    moments, kept = MOMENTS * FLOAT * _count(trained.values()), FLOAT * _count(averaged)
    weights = FLOAT * _count(t for name, t in training.weights().items() if not name.startswith(without))
    unwritten = FLOAT * _count(t for name, t in state.items() if name not in names)
    own = sum(t.numel() * t.element_size() for t in [*training.parameters(), *training.buffers()])
    gradients = sum(p.numel() * p.element_size() for p in trained.values())
    return Budget(own + gradients + moments + kept, weights, weights + kept + unwritten + moments)


def check_disk(logdir: Path, needs: Budget, best: bool) -> None:
    """Check that the disk can hold two checkpoints (one while it replaces the other) and the weights.

    Args:
        logdir: an existing folder.
        best: whether the best weights are kept too.

    Raises:
        UserError: the disk of `logdir` has too little free space.
    """
    free = shutil.disk_usage(logdir).free
    kept = [file for file in (logdir / "checkpoints").rglob("*") if file.is_file() and file.suffix != ".tmp"]
    there = sum(file.stat().st_size for file in kept)
    needed = 2 * needs.checkpoint + needs.weights * (1 + best) - there
    if free < needed:
        raise UserError(
            f"--logdir {logdir}: its disk has {size(free)} free, expected {size(needed)} for two checkpoints of "
            f"{size(needs.checkpoint)} (the old one is kept until the new one is complete) and the weights"
        )


def describe(training: pl.LightningModule, trainer: pl.Trainer, data: DataModule, needs: Budget) -> str:
    """Describe on a few lines the settings that matter most and are easily wrong."""
    accumulated, devices = trainer.accumulate_grad_batches, trainer.world_size
    trained = _count(p for p in training.parameters() if p.requires_grad)
    total = _count(training.parameters())
    optimisation, steps = training.optimisation, trainer.max_steps
    warm_up = f" after {optimisation.warmup_steps} steps of warm-up" if optimisation.warmup_steps else ""
    cooldown = f", falling to 0 over the last {optimisation.cooldown:.0%}" if optimisation.cooldown else ""
    return "\n".join(
        [
            f"{type(training).__name__}: {trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters are trained, "
            f"in {trainer.precision}",
            f"learning rate {optimisation.learning_rate:g}{warm_up}{cooldown}",
            f"batch {data.batch_size} = {devices} device{'s' * (devices > 1)} x {data.loaded_at_once} x {accumulated} "
            f"accumulated; {steps} steps = {steps / data.steps_per_epoch:.3g} epochs of {len(data.train)} items",
            f"memory: {size(needs.memory)} for weights, gradients, optimizer and averages; activations come on top",
            f"disk: {size(needs.checkpoint)} per checkpoint",
        ]
    )


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() for t in tensors)
