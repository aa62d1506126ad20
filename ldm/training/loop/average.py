"""Moving averages of the weights, and the split of a training's tensors between weights file and trainer state."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class Averages(pl.Callback):
    """Exponential moving averages of the trained weights in `training.weights()`, in float32.

    The update after optimizer step n is `average += (1 - d) (weight - average)` with the decay warmed up as
    d = min(decay, n / (9 + n)): early on, when the weights still move fast, the averages forget fast. Validation and
    pictures use the averages instead of the weights.

    Args:
        decay: None keeps no averages: no memory is used, and `applied` changes nothing.
    """

    def __init__(self, decay: float | None):
        self.decay, self.step = decay, 0
        self.values: dict[str, Tensor] = {}  # by name in the training's state dict
        self._validation = ExitStack()

    def on_load_checkpoint(self, trainer: pl.Trainer, training: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.decay is not None:
            names, weights = written_names(training), checkpoint["weights"]
            trained = _trained(training)
            self.values = {
                n: torch.empty_like(p.detach(), dtype=torch.float32).copy_(weights[names[n]])
                for n, p in trained.items()
            }

    def on_fit_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if self.decay is not None:
            trained = _trained(training)
            start = self.values or {name: p.detach().to(torch.float32, copy=True) for name, p in trained.items()}
            self.values = {name: value.to(trained[name].device) for name, value in start.items()}

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step or not self.values:  # in the middle of gradient accumulation
            return
        self.step = n = trainer.global_step
        current = [p.detach().float() for name, p in training.named_parameters() if name in self.values]
        torch._foreach_lerp_(list(self.values.values()), current, 1 - min(self.decay, n / (9 + n)))

    @contextmanager
    def applied(self, training: pl.LightningModule) -> Iterator[None]:
        """Replace the weights by their averages while the block runs, without copying."""
        averaged = [(p, p.data, self.values[name]) for name, p in training.named_parameters() if name in self.values]
        for parameter, own, average in averaged:
            parameter.data = average.to(own.dtype)
        try:
            yield
        finally:
            for parameter, own, _ in averaged:
                parameter.data = own

    def on_validation_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self._validation.enter_context(self.applied(training))

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self._validation.close()

    def on_exception(self, *_: Any) -> None:
        self._validation.close()

    def weights(self, training: pl.LightningModule, without: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Return the content of a weights file: `training.weights()` with the averages, not copied.

        Args:
            without: prefixes of names to leave out.
        """
        names = written_names(training)
        with self.applied(training):
            weights = training.weights()
        weights |= {names[name]: value for name, value in self.values.items()}  # float32 also where the weights are not
        return {name: tensor for name, tensor in weights.items() if not name.startswith(without)}

    def remainder(self, training: pl.LightningModule) -> dict[str, Tensor]:
        """Return the part of the training's state dict that is not in a weights file, including averaged weights."""
        names = written_names(training)
        return {n: t for n, t in training.state_dict().items() if n in self.values or n not in names}


def written_names(training: pl.LightningModule) -> dict[str, str]:
    """Map names in the training's state dict to those in `training.weights()` of tensors that share memory."""
    written = {_memory(tensor): name for name, tensor in training.weights().items()}
    return {n: written[_memory(t)] for n, t in training.state_dict().items() if _memory(t) in written}


def _trained(training: pl.LightningModule) -> dict[str, Tensor]:
    names = written_names(training)
    return {name: p for name, p in training.named_parameters() if p.requires_grad and name in names}


def _memory(tensor: Tensor) -> tuple:
    """Return the identity of a tensor's memory, on the meta device too."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride()
