"""From a training config to a run on disk: what `ldm train` calls."""

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
from ldm.training.loop.progress import Progress
from ldm.training.loop.resume import START, refuse_changes
from ldm.training.loop.saving import Checkpoints, Seeded
from ldm.training.loop.signals import Stopped
from ldm.training.loop.start import FROZEN, start
from ldm.training.loop.trainer import make_trainer
from ldm.utils.errors import UserError
from ldm.utils.files import replacing


def fit(config: DictConfig, logdir: Path, resume: bool = False) -> Path:
    """Train what `config` describes into `logdir`; returns the path of the final weights.

    `logdir` then holds config.yaml, which `ldm.load` takes too; checkpoints/last/ (to go on from: at least every
    `save_every` minutes and after the last step) and checkpoints/best/ (by `monitor`); csv/, tensorboard/ and panel/;
    log.txt, if there was anything to warn of; and weights.safetensors: the moving averages, if there are any, under the
    names that `ldm.load` reads, without the networks of the `frozen` files. The text that it prints says what the run
    will do and need.

    Args:
        config: configs/train/defaults.yaml says what its keys mean.
        resume: go on from checkpoints/last if there is one, from the start otherwise; without it a used folder is
            refused.

    Raises:
        UserError: something is wrong with the config, the files that it names, the machine or the training itself.
        SystemExit: a signal stopped the training, after it was saved; the code is 128 + the signal's number.
    """
    check(config)
    last, file = logdir / "checkpoints" / "last", logdir / "config.yaml"
    averages, guard, without = Averages(config.get("ema")), Guard(last), FROZEN if config.get("frozen") else ()
    every, monitor = config.get("save_every", 5), config.get("monitor")
    callbacks = [Seeded(), averages, guard, Checkpoints(last.parent, averages, guard, every, without, monitor)]
    if config.get("panel_every"):
        callbacks.append(Panel(config.panel_every, logdir / "panel"))
    callbacks.append(Progress(config.trainer.get("enable_progress_bar", True)))
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # no tips, no list of absent accelerators
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")  # of a torch newer than Lightning knows
    trainer = make_trainer(config, logdir, callbacks)
    first = trainer.global_rank == 0  # of the processes of a run on several devices, which all come by here
    if resume:
        refuse_changes(config, file)
    elif first and file.exists():
        raise UserError(f"{logdir}: holds a run already; add --resume to go on with it or choose another --logdir")
    found = whole(last)
    going_on = resume and found.exists()

    data = build(config.data)
    trainer.accumulate_grad_batches = data.divide(trainer.world_size)
    trainer.val_check_interval *= trainer.accumulate_grad_batches if config.get("validate_every") else 1
    if first:
        check_writable(logdir)
    if data.validation is None:
        trainer.limit_val_batches = 0  # else Lightning warns of a loader without batches
    training = start(config, found if going_on else None)
    needs = budget(training, averages, without)
    if first:
        check_disk(logdir, needs, best=monitor is not None)
        print(describe(training, trainer, data, needs))
        write_config(config, file)
    trainer.loggers = make_loggers(logdir, config.get("wandb"), OmegaConf.to_container(config, resolve=True))
    try:
        with warnings_to(logdir / "log.txt"):
            trainer.fit(training, datamodule=data, ckpt_path=found if going_on else None, weights_only=True)
    except Stopped as stop:
        if first:
            print(stop)
        raise SystemExit(128 + stop.signum if first else 0) from None  # a launcher kills all if another one fails
    weights = logdir / WEIGHTS
    if trainer.is_global_zero:
        dtype = DTYPES[config.get("weights", "float32")]
        save_tensors(weights, averages.weights(training, without), {"step": str(trainer.global_step)}, dtype)
        print(f"weights written to {weights}")
    return weights


def check_writable(logdir: Path) -> None:
    """Make the folder of a run.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        probe = logdir / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
        for leftover in logdir.rglob(".*.tmp"):  # of a process that was killed as it wrote
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"--logdir {logdir}: cannot write there ({error.strerror})") from error


@contextmanager
def warnings_to(file: Path) -> Iterator[None]:
    """Append what is logged, in loading processes too, to a file: the pictures that cannot be read, say."""
    handler = logging.FileHandler(file, delay=True, encoding="utf-8")  # no file as long as there is nothing to say
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("ldm").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("ldm").removeHandler(handler)
        handler.close()


def write_config(config: DictConfig, file: Path) -> None:
    """The config of a run as it is, with the `checkpoint` by which `ldm.load` finds its weights."""
    config = config.copy()
    before = OmegaConf.load(file) if file.exists() else {}
    for key in START:  # a resumed run does not name them again
        if config.get(key) is None and before.get(key) is not None:
            config[key] = before[key]
    if "model" in config:
        config.checkpoint = [str(file.parent.resolve() / WEIGHTS), *(config.get("frozen") or ())]
    with replacing(file) as partial:
        OmegaConf.save(config, partial)
