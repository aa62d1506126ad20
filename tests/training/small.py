"""A training that takes a second: the judge of ToyWorld edits, in small, on scenes that it draws itself."""

import os
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from ldm.config import load_config
from ldm.training.judge import JudgeTraining
from ldm.training.loop.checkpoint_folder import TRAINER, WEIGHTS

CHANGES = {
    "model.params.size": 16,
    "data.params.train.params.length": 16,
    "data.params.validation.params.length": 8,
    "data.params.batch_size": 4,
    "data.params.num_workers": 0,
    "validate_every": 2,
    "trainer.max_steps": 5,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": 0,
    "trainer.enable_progress_bar": "false",
    "training.params.optimisation.params.cooldown": 0.0,
    "training.params.optimisation.params.warmup_steps": 3,
}
BASE = "train/toyworld_judge"
STATES = ("optimizer_states", "lr_schedulers", "state_dict")


def overrides(**changes: object) -> list[str]:
    """`key=value` for the keys of CHANGES and others; in keyword arguments __ stands for the dot."""
    return [f"{k}={v}" for k, v in (CHANGES | {k.replace("__", "."): v for k, v in changes.items()}).items()]


def small_config(**changes: object) -> DictConfig:
    return load_config(BASE, overrides=overrides(**changes))


def same_files(a: Path, b: Path) -> bool:
    """Whether two weights files are equal to the bit."""
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, signum: int = signal.SIGTERM, rank: int = 0) -> None:
    """The signal comes while a batch of step `step` (from 0) is computed."""
    original = JudgeTraining.training_step

    def signalled(self, batch, index):
        if self.global_step == step and self.global_rank == rank:
            os.kill(os.getpid(), signum)
        return original(self, batch, index)

    monkeypatch.setattr(JudgeTraining, "training_step", signalled)


def same_trees(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_trees(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_trees, a, b))
    return a == b


def same_runs(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, averages, optimizer and schedule, to the bit."""
    last, other = a / "checkpoints" / "last", b / "checkpoints" / "last"
    states = [torch.load(folder / TRAINER, weights_only=True) for folder in (last, other)]
    return (
        same_files(a / WEIGHTS, b / WEIGHTS)
        and same_files(last / WEIGHTS, other / WEIGHTS)
        and all(same_trees(states[0][key], states[1][key]) for key in STATES)
    )
