"""The initial weights of a training: random, published, or those of the run that it resumes."""

import os
from itertools import chain
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import tally
from ldm.checkpoints.load import fill_roots, read_files, take
from ldm.checkpoints.warm_start import warm_start
from ldm.config import build
from ldm.training.loop.average import written_names
from ldm.training.loop.checkpoint_folder import WEIGHTS, read_trainer
from ldm.utils.errors import UserError
from ldm.utils.project import find_file

FROZEN = ("autoencoder.", "conditioner.encoder.")  # networks in the files of `frozen`


def start(config: DictConfig, last: Path | None = None) -> pl.LightningModule:
    """Build the training of a config with its weights; frozen networks never keep random ones.

    Args:
        config: its keys `frozen`, `pretrained_model` and `clip` name the files of the weights.
        last: checkpoint of the same training to resume from; then only the `frozen` files are read.

    Raises:
        UserError: a file is missing or does not fit, or the config lacks weights of frozen networks or has unused ones.
    """
    pretrained, clip, frozen = (config.get(key) for key in ("pretrained_model", "clip", "frozen"))
    if last is None and pretrained is None:
        if clip is not None:
            raise UserError(f"clip {clip}: expected pretrained_model with it")
        training = drawn(config)
        if not frozen and not all(p.requires_grad for p in training.parameters()):
            raise UserError(
                "this training has frozen networks, expected their weights: --pretrained_model FILE, "
                "or `frozen` in the config"
            )
        if frozen:
            fill_roots(training.model, FROZEN, frozen)
        return training

    with torch.device("meta"):
        training = build(config.training)
    if last is not None:
        if frozen:
            fill_roots(training.model, FROZEN, frozen)
        restore(training, last)
    elif hasattr(training, "model"):
        files = [find_file(file) for file in (pretrained, *(frozen or ()))]
        warm_start(training.model, files, clip and find_file(clip), config.seed)
    else:
        training = drawn(config)  # networks missing in the file, such as a discriminator, keep their random weights
        fill_written(training, find_file(pretrained))
    return training


def drawn(config: DictConfig) -> pl.LightningModule:
    """Build the training with random weights, a function of the seed; later draws have generators of their own."""
    pl.seed_everything(config.seed, verbose=False)
    return build(config.training)


def fill_written(training: pl.LightningModule, file: Path) -> None:
    """Load the weights that a training writes from a file that may hold more, such as `sd-v1-4.ckpt`.

    Raises:
        UserError: the file does not hold all of them.
    """
    tensors, source = read_files([file])
    shapes = {name: tensor.shape for name, tensor in training.weights().items()}
    root = os.path.commonprefix(list(shapes)).rpartition(".")[0]
    values = take(shapes, tensors, source, within=f"{root}." if root else "")
    names = written_names(training)
    training.load_state_dict({n: values[names[n]] for n in names}, strict=False, assign=True)


def restore(training: pl.LightningModule, last: Path) -> None:
    """Load the weights of a checkpoint into a training that was built on the meta device.

    Raises:
        UserError: the checkpoint does not hold them.
    """
    names, empty = written_names(training), training.state_dict()
    written = read_tensors(last / WEIGHTS)
    found = {name: written[names[name]] for name in names if names[name] in written} | read_trainer(last)["state_dict"]
    misshapen = [f"{n} {tuple(t.shape)}" for n, t in found.items() if n not in empty or empty[n].shape != t.shape]
    tensors = chain(training.named_parameters(), training.named_buffers())
    missing = [name for name, tensor in tensors if tensor.is_meta and name not in found]
    if problems := tally({"missing": missing, "unexpected or of another shape": misshapen}):
        raise UserError(f"checkpoint {last}: does not match this training: {problems}")
    # including their memory layout, e.g. channels_last: the order of sums depends on it
    copies = {name: torch.empty_like(empty[name], device="cpu").copy_(t) for name, t in found.items()}
    training.load_state_dict(copies, strict=False, assign=True)
    training.strict_loading = False  # Lightning loads the trainer's state next, which has no weights
