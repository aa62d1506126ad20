"""The training of a config into a run folder, as `ldm train` starts it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ldm.checkpoints.io import save_tensors
from ldm.config import build
from ldm.training.loop.average import Averages
from ldm.training.loop.budget import budget, check_disk, describe
from ldm.training.loop.check import DTYPES, check
from ldm.training.loop.checkpoint_folder import WEIGHTS, whole
from ldm.training.loop.guard import Guard
from ldm.training.loop.loggers import make_loggers
from ldm.training.loop.panel import Panel
from ldm.training.loop.progress import TrainingProgress
from ldm.training.loop.resume import START, refuse_changes
from ldm.training.loop.saving import Checkpoints, Seeded
from ldm.training.loop.signals import Stopped
from ldm.training.loop.start import FROZEN, start
from ldm.training.loop.trainer import make_trainer
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing

log = logging.getLogger(__name__)


def fit(config: DictConfig, logdir: Path, resume: bool = False) -> Path:
    """Train the model of a config in `logdir` and return the path of the final weights.

    `logdir` then holds config.yaml, which `ldm.load` reads too; checkpoints/last/ (to resume from, saved every
    `save_every` minutes and after the last step) and checkpoints/best/ (by `monitor`); csv/, tensorboard/ and panel/;
    log.txt, if there were warnings; and weights.safetensors: the weights, or their moving averages, under the names
    that `ldm.load` reads, without the networks of the `frozen` files. At the start the plan and the needs of the run
    are logged.

    Args:
        config: its keys are explained in configs/train/defaults.yaml.
        resume: continue from checkpoints/last if it exists, otherwise start from scratch; without it a used folder is
            refused.

    Raises:
        UserError: the config, its files or the machine are not suitable, or the training went wrong.
        SystemExit: a signal stopped the training, which was saved; the code is 128 + the signal's number.
    """
    settings = check(config)
    last, file = logdir / "checkpoints" / "last", logdir / "config.yaml"
    averages, guard, without = Averages(settings.ema), Guard(last), FROZEN if settings.frozen else ()
    checkpoints = Checkpoints(last.parent, averages, guard, settings.save_every, without, settings.monitor)
    callbacks = [Seeded(), averages, guard, checkpoints]
    if settings.panel_every:
        callbacks.append(Panel(settings.panel_every, logdir / "panel"))
    callbacks.append(TrainingProgress(settings.trainer.get("enable_progress_bar", True)))
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # no tips, no list of missing accelerators
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")  # from a torch newer than Lightning
    trainer = make_trainer(config, logdir, callbacks)
    first = trainer.global_rank == 0  # of several processes, which all run this
    if resume:
        refuse_changes(config, file)
    elif first and file.exists():
        raise UserError(
            f"--logdir {logdir}: already holds a run; add --resume to continue it, or choose another folder"
        )
    found = whole(last)
    continued = found if resume and found.exists() else None

    data = build(config.data)
    trainer.accumulate_grad_batches = data.divide(trainer.world_size)
    trainer.val_check_interval *= trainer.accumulate_grad_batches if settings.validate_every else 1
    if first:
        check_writable(logdir)
    if data.validation is None:
        trainer.limit_val_batches = 0  # otherwise Lightning warns about a loader without batches
    training = start(config, continued)
    needs = budget(training, averages, without)
    if first:
        check_disk(logdir, needs, best=settings.monitor is not None)
        log.info("%s", describe(training, trainer, data, needs))
        write_config(config, file)
    trainer.loggers = make_loggers(logdir, settings.wandb, OmegaConf.to_container(config, resolve=True))
    try:
        with warnings_to(logdir / "log.txt"):
            trainer.fit(training, datamodule=data, ckpt_path=continued, weights_only=True)
    except Stopped as stop:
        if first:
            log.info("%s", stop)
        raise SystemExit(128 + stop.signum if first else 0) from None  # a launcher kills all if another one fails
    weights = logdir / WEIGHTS
    if trainer.is_global_zero:
        metadata, dtype = {"step": str(trainer.global_step)}, DTYPES[settings.weights]
        save_tensors(weights, averages.weights(training, without), metadata, dtype)
        log.info("weights written to %s", weights)
    return weights


def check_writable(logdir: Path) -> None:
    """Create the folder of a run and check that it can be written to.

    Raises:
        UserError: it cannot be written to.
    """
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        probe = logdir / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
        for leftover in logdir.rglob(".*.tmp"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--logdir {logdir}: cannot be written ({reason(error)})") from error


@contextmanager
def warnings_to(file: Path) -> Iterator[None]:
    """Append the warnings of `ldm`, also of loading processes, to a file, such as those about unreadable pictures."""
    handler = logging.FileHandler(file, delay=True, encoding="utf-8")  # no file without warnings
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("ldm").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("ldm").removeHandler(handler)
        handler.close()


def write_config(config: DictConfig, file: Path) -> None:
    """Write the config of a run, with the `checkpoint` by which `ldm.load` finds its weights."""
    config = config.copy()
    before = OmegaConf.load(file) if file.exists() else {}
    for key in START:  # a resumed run may leave them out
        if config.get(key) is None and before.get(key) is not None:
            config[key] = before[key]
    if "model" in config:
        config.checkpoint = [str(file.parent.resolve() / WEIGHTS), *(config.get("frozen") or ())]
    with replacing(file) as partial:
        OmegaConf.save(config, partial)
