"""Lightning's Trainer from the config's `trainer`, checked before anything is loaded."""

import inspect
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ldm.training.loop.checkpoint_folder import FolderIO
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

INSTEAD = {  # Lightning's key -> our key
    "accumulate_grad_batches": "data.params.batch_per_device",
    "max_epochs": "trainer.max_steps",
    "min_epochs": "trainer.max_steps",
    "min_steps": "trainer.max_steps",
    "val_check_interval": "validate_every",
    "check_val_every_n_epoch": "validate_every",
    "limit_train_batches": "trainer.max_steps",
    "max_time": "trainer.max_steps",
    "default_root_dir": "--logdir",
    "logger": "wandb",
    "enable_checkpointing": "save_every",
}
OURS = ("callbacks", "plugins", "use_distributed_sampler", "enable_model_summary", "model_registry", "barebones",
        "reload_dataloaders_every_n_epochs", "enable_autolog_hparams")  # fmt: skip
LOG_EVERY = 50


def make_trainer(config: DictConfig, logdir: Path, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Make a Trainer without loggers that validates every `validate_every` steps; set accumulation from the data later.

    Raises:
        UserError: a key of `trainer` is unknown or set elsewhere, or this machine lacks the requested devices.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)
    known = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self", *INSTEAD, *OURS}
    for key in settings:
        if key in INSTEAD:
            raise UserError(f"trainer.{key}: cannot be set here; use {INSTEAD[key]}")
        if key not in known:
            raise UserError(f"trainer.{key}: unknown key; {nearest(key, known)}")
    steps = settings.get("max_steps")
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"trainer.max_steps {steps}: expected a whole number, 1 or more")
    check_devices(settings.get("accelerator", "auto"), settings.get("devices", "auto"))
    settings["log_every_n_steps"] = max(1, min(settings.get("log_every_n_steps", LOG_EVERY), steps))
    settings.pop("enable_progress_bar", None)  # the bar is our own callback, which reads it
    if config.get("validate_every") is None:
        settings |= {"limit_val_batches": 0}
    else:
        settings |= {"val_check_interval": config.validate_every}
    try:
        return pl.Trainer(
            **settings,
            check_val_every_n_epoch=None if "val_check_interval" in settings else 1,
            callbacks=callbacks,
            plugins=[FolderIO()],
            logger=False,
            default_root_dir=logdir,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module's sampler handles the processes
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())[:300]}") from error


def check_devices(accelerator: str, devices: int | str | list[int]) -> None:
    """Refuse more devices than this machine has. Any number of CPU processes may be requested.

    Raises:
        UserError: there are fewer; the message says how many and what to add to the command.
    """
    if accelerator not in ("auto", "gpu", "cuda", "mps"):
        return
    here = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if here == 0 and accelerator != "auto":
        raise UserError(f"trainer.accelerator={accelerator}: this machine has no GPU; add trainer.accelerator=cpu")
    if devices in ("auto", -1, "-1"):
        return
    setting = f"trainer.devices={devices}".replace(" ", "")
    try:
        if isinstance(devices, str):
            devices = [int(number) for number in devices.split(",") if number] if "," in devices else int(devices)
        wanted = devices if isinstance(devices, int) else max(map(int, devices), default=0) + 1  # how many, or which
    except (TypeError, ValueError) as error:
        raise UserError(f"{setting}: expected auto, a number, or a list of them such as 0,1") from error
    if here == 0 and wanted > 1:
        raise UserError(
            f"{setting}: this machine has no GPU; add trainer.devices=1 "
            "(or trainer.accelerator=cpu for as many processes)"
        )
    if wanted > here > 0:
        raise UserError(f"{setting}: this machine has {here} GPU{'s' * (here > 1)}; add trainer.devices={here}")
