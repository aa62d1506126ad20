"""From a training config to a run on disk: what `scripts/train.py` calls."""

import logging
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ldm.checkpoints.io import save_tensors
from ldm.checkpoints.load import fill_roots
from ldm.checkpoints.warm_start import warm_start
from ldm.config import build
from ldm.training.callbacks import LastCheckpoint, MovingAverage
from ldm.utils.errors import UserError

SAVE_EVERY = timedelta(minutes=5)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FROZEN = ("autoencoder.", "conditioner.encoder.")


def fit(
    config: DictConfig,
    logdir: Path,
    resume: bool = False,
    pretrained_model: Path | None = None,
    clip: Path | None = None,
) -> Path:
    """Train what `config` describes into `logdir`; returns the path of the final weights.

    `logdir` then holds config.yaml, checkpoints/last.ckpt (weights, EMA and optimizer, at least every 5 minutes
    and after the last step), metrics as CSV and TensorBoard, and weights.safetensors: the moving averages under the
    names that `ldm.load` reads, without the networks that `frozen` names, which have files of their own.

    Args:
        config: nodes `training` and `data`; `trainer`, the keyword arguments of Lightning's Trainer; `ema`, the decay;
            `frozen` (optional), files with the networks that are not trained; `weights` (optional), the dtype to write.
        resume: go on from checkpoints/last.ckpt if there is one, from the start otherwise; without it a used folder is
            refused.
        pretrained_model, clip: start from published weights, see `ldm.checkpoints.warm_start`.
    """
    last = logdir / "checkpoints" / "last.ckpt"
    first = rank_zero_only.rank == 0  # of the processes of a run on several devices, which all come by here
    steps, dtype = config.trainer.get("max_steps"), DTYPES.get(config.get("weights", "float32"))
    if not isinstance(steps, int) or steps < 1:
        raise UserError(f"trainer.max_steps {steps}: expected a positive number")
    if dtype is None:
        raise UserError(f"weights {config.weights}: expected one of {', '.join(DTYPES)}")
    if first and (logdir / "config.yaml").exists() and not resume:
        raise UserError(f"{logdir}: holds a run already; add --resume to go on with it or choose another --logdir")
    pl.seed_everything(config.seed, verbose=False)  # initial weights only: every later draw has its own generator
    training = start(config, pretrained_model, clip)
    data = build(config.data)
    if first:
        try:
            logdir.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, logdir / "config.yaml")
        except OSError as error:
            raise UserError(f"--logdir {logdir}: cannot write there ({error.strerror})") from error
        describe(training, config)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # no tips, no list of absent accelerators
    average = MovingAverage(config.ema)
    trainer = pl.Trainer(
        **OmegaConf.to_container(config.trainer, resolve=True),
        logger=[CSVLogger(logdir, name="csv"), TensorBoardLogger(logdir, name="tensorboard", version="")],
        callbacks=[average, LastCheckpoint(last, SAVE_EVERY)],
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module's own sampler knows of the processes
    )
    trainer.fit(training, datamodule=data, ckpt_path=str(last) if resume and last.exists() else None, weights_only=True)
    weights = logdir / "weights.safetensors"
    if trainer.is_global_zero:
        left_out = FROZEN if "frozen" in config else ()
        tensors = {name: t.to(dtype) for name, t in average.averaged.weights().items() if not name.startswith(left_out)}
        save_tensors(weights, tensors, {"step": str(trainer.global_step)})
    return weights


def start(config: DictConfig, pretrained_model: Path | None = None, clip: Path | None = None) -> pl.LightningModule:
    """The training with its initial weights: a network that is not trained never keeps random ones.

    Raises:
        UserError: the config freezes networks and nothing says where their weights are, or it has no use for some.
    """
    if clip is not None and pretrained_model is None:
        raise UserError(f"--clip {clip}: of use with --pretrained_model only")
    if pretrained_model is not None:
        with torch.device("meta"):
            training = build(config.training)
        if not hasattr(training, "model"):
            raise UserError(f"--pretrained_model: {type(training).__name__} trains its network from the start")
        warm_start(training.model, pretrained_model, clip, config.seed)
        return training
    training = build(config.training)
    if "frozen" in config:
        fill_roots(training.model, FROZEN, config.frozen)
    elif hasattr(training, "model"):
        raise UserError("this training needs weights to start from: --pretrained_model FILE, or `frozen` in its config")
    return training


def describe(training: pl.LightningModule, config: DictConfig) -> None:
    """Print what decides a run and is easily got wrong, before it starts."""
    trained = sum(p.numel() for p in training.parameters() if p.requires_grad)
    total = sum(p.numel() for p in training.parameters())
    print(
        f"{type(training).__name__}: {trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters trained, "
        f"lr {training.optimisation.learning_rate:g}, batch {config.data.params.batch_size} per device, "
        f"{config.trainer.max_steps} steps, {config.trainer.get('precision', '32-true')}"
    )
