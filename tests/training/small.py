"""A training that takes a second: the judge of ToyWorld edits, in small, on scenes that it draws itself."""

from pathlib import Path

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from ldm.config import load_config

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


def overrides(**changes: object) -> list[str]:
    """`key=value` for the keys of CHANGES and others; in keyword arguments __ stands for the dot."""
    return [f"{k}={v}" for k, v in (CHANGES | {k.replace("__", "."): v for k, v in changes.items()}).items()]


def small_config(**changes: object) -> DictConfig:
    return load_config(BASE, overrides=overrides(**changes))


def same_files(a: Path, b: Path) -> bool:
    """Whether two weights files are equal to the bit."""
    a, b = load_file(a), load_file(b)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
