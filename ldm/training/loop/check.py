"""A training config is looked through before anything is built."""

import torch
from omegaconf import DictConfig

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest
from ldm.utils.project import find_file

KEYS = {
    "seed", "ema", "weights", "wandb", "validate_every", "panel_every", "save_every", "monitor", "model", "frozen",
    "pretrained_model", "clip", "training", "data", "dataset", "recipe", "source", "trainer", "checkpoint",
}  # fmt: skip
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check(config: DictConfig) -> None:
    """Refuse what can be seen to be wrong before anything is built.

    Raises:
        UserError: an unknown key, a value that is none of the possible ones, a file that is not there.
    """
    for key in config:
        if key not in KEYS:
            raise UserError(f"{key}: unknown key at the top level of a training config; {nearest(key, KEYS)}")
    for key in ("training", "data", "trainer"):
        if config.get(key) is None:
            raise UserError(f"{key}: missing, the config describes no training")
    if (dtype := config.get("weights", "float32")) not in DTYPES:
        raise UserError(f"weights {dtype}: expected one of {', '.join(DTYPES)}")
    if (decay := config.get("ema")) is not None and not 0 <= decay < 1:
        raise UserError(f"ema {decay}: expected a decay of at least 0 and below 1, or null")
    for key in ("validate_every", "panel_every"):
        if (steps := config.get(key)) is not None and not (isinstance(steps, int) and steps > 0):
            raise UserError(f"{key} {steps}: expected a positive number of steps, or null")
    if (minutes := config.get("save_every")) is not None and not (isinstance(minutes, int | float) and minutes >= 0):
        raise UserError(f"save_every {minutes}: expected minutes, at least 0, or null")
    monitor = config.get("monitor")
    if monitor is not None and (set(monitor) != {"metric", "mode"} or monitor.mode not in ("min", "max")):
        raise UserError(f"monitor {monitor}: expected {{metric: NAME, mode: min or max}}, or null")
    for key in ("pretrained_model", "clip", "frozen"):
        named = config.get(key) or []
        for file in [named] if isinstance(named, str) else named:
            if not (path := find_file(file)).is_file():
                raise UserError(f"{key} {path}: no such file")
