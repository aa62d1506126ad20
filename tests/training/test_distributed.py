"""Two processes train as one: the same gradients, the same weights, from the same global batch."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldm.config import build
from ldm.data.datamodule import DataModule
from ldm.training.base import Optimisation
from ldm.training.exemplar import ExemplarTraining
from ldm.utils.random import generator
from tests.golden_weights import fill
from tests.processes import train_together
from tests.tiny import CONFIG

OPTIMISATION = Optimisation(learning_rate=1e-2, weight_decay=0.0, warmup_steps=0, cooldown=0.0, seed=4)


class Noisy(Dataset):
    """Twenty items of the kind that the recipe makes."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draw = generator("item", index)
        return {
            "image": torch.rand(3, 64, 64, generator=draw) * 2 - 1,
            "mask": (torch.rand(1, 64, 64, generator=draw) < 0.5).float(),
            "exemplar": torch.randn(3, 32, 32, generator=draw),
        }


class Plain(ExemplarTraining):
    """Stochastic gradient descent, whose weights differ by as much as the gradients do; keeps those of step 1."""

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], OPTIMISATION.learning_rate)

    averaged = True

    def on_train_start(self) -> None:
        if not self.averaged:  # each process steps by its own gradients, as if it did not know of the others
            self.trainer.strategy.model.require_backward_grad_sync = False

    def on_before_optimizer_step(self, optimizer) -> None:
        if self.global_step == 0:
            self.first = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


def train(folder: Path, devices: int, at_once: int | None = None, averaged: bool = True) -> None:
    training = Plain(fill(build(CONFIG)).requires_grad_(True), OPTIMISATION, uncond_probability=0.3)
    training.averaged = averaged
    data = DataModule(Noisy(), 4, at_once, validation=Noisy(), seed=1)
    trainer = pl.Trainer(
        max_steps=5, accelerator="cpu", devices=devices, logger=False, enable_progress_bar=False,
        strategy="ddp" if devices > 1 else "auto", use_distributed_sampler=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder,
        val_check_interval=5, check_val_every_n_epoch=None,
    )  # fmt: skip
    trainer.accumulate_grad_batches = data.divide(trainer.world_size)
    trainer.fit(training, datamodule=data)
    if trainer.is_global_zero:
        weights = {name: p.detach() for name, p in training.named_parameters()}
        losses = {name: value.clone() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        torch.save([training.first, weights, losses], folder / "result.pt")


def as_one_of_two(rank: int, folder: Path, averaged: bool) -> None:
    train(folder, devices=2, averaged=averaged)


def result(folder: Path) -> list[dict[str, Tensor]]:
    return torch.load(folder / "result.pt", weights_only=True)


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The distance of two sets of tensors, relative to the second's norm."""
    assert ours.keys() == theirs.keys()
    square = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    return float((square / sum(tensor.double().square().sum() for tensor in theirs.values())) ** 0.5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    train(folder, devices=1)
    return result(folder)


def moved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What training added to the weights."""
    start = dict(fill(build(CONFIG)).named_parameters(prefix="model"))
    return {name: tensor - start[name].detach() for name, tensor in weights.items()}


def test_two_processes_train_as_one(alone, tmp_path):
    train_together(as_one_of_two, tmp_path, True)
    gradients, weights, losses = result(tmp_path)
    assert difference(gradients, alone[0]) < 1e-5
    assert difference(weights, alone[1]) < 1e-5
    assert difference(moved(weights), moved(alone[1])) < 1e-3  # the weights alone would hardly show a wrong step
    assert losses.keys() == alone[2].keys() and len(losses) == 11  # 20 items in 10 bins, and their mean
    for name, loss in losses.items():
        torch.testing.assert_close(loss, alone[2][name], rtol=1e-4, atol=0)


def test_gradients_that_are_not_averaged_are_noticed(alone, tmp_path):
    train_together(as_one_of_two, tmp_path, False)
    gradients, weights, _ = result(tmp_path)
    assert difference(gradients, alone[0]) > 1e-2
    assert difference(weights, alone[1]) > 1e-5
    assert difference(moved(weights), moved(alone[1])) > 1e-2


def test_accumulated_gradients_are_those_of_the_whole_batch(alone, tmp_path):
    train(tmp_path, devices=1, at_once=2)
    gradients, weights, _ = result(tmp_path)
    assert difference(gradients, alone[0]) < 1e-5
    assert difference(weights, alone[1]) < 1e-5
