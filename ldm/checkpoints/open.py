"""A model ready to run: device and precision chosen, weights loaded."""

from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ldm.checkpoints.load import build_empty, files_of, load_into
from ldm.config import load_config
from ldm.utils.device import has_fast_bf16
from ldm.utils.errors import UserError

BIG = 200_000_000  # parameters; below, the time that bf16 saves is not worth its rounding


def open_model(
    config: str | Path,
    file: str | Path | Sequence[str | Path] | None,
    device: torch.device,
    precision: str = "auto",
    check: Callable[[nn.Module], None] | None = None,
    node: DictConfig | None = None,
) -> tuple[nn.Module, str]:
    """Load a model in `full` (fp32) or `bf16` precision; `auto` is bf16 for a large model where the hardware has it.

    `full` turns off TensorFloat-32 in the convolutions of this process, which torch has on by default: its products
    have 10 bits of mantissa, as float16 has.

    Args:
        file: the weights, possibly in several files; by default the config's own.
        check: called with the model before there is anything in it, to refuse one that is of another kind.
        node: the config, if it has been loaded.

    Returns:
        The model and the precision chosen.
    """
    node = load_config(config) if node is None else node
    if "model" not in node:
        raise UserError(f"config {config}: it has no `model`")
    empty = build_empty(node.model)
    if check is not None:
        check(empty)
    files = files_of(node, file, f"config {config}")
    if precision == "auto":
        size = sum(parameter.numel() for parameter in empty.parameters())
        precision = "bf16" if size > BIG and has_fast_bf16(device) else "full"
    if precision == "full":
        torch.backends.cudnn.allow_tf32 = False
    return load_into(empty, files, device, torch.bfloat16 if precision == "bf16" else torch.float32), precision


def open_classifier(
    given: MutableMapping[str, Any], node: DictConfig, device: torch.device, precision: str
) -> nn.Module | None:
    """The classifier of `ldm.utils.cli.add_classifier_flags`, if there is one; see `open_model`.

    Args:
        given: flags. They get the weights that the model's config names, unless there are others.
        node: the model's config; a conf of the original's may have a `classifier`.

    Raises:
        UserError: it is none, or there is none to be scaled.
    """
    if "classifier" in node:
        given.setdefault("classifier", node.classifier)
    if not given.keys() & {"classifier", "classifier_config"}:
        if "classifier_scale" in given:
            raise UserError("--classifier_scale: expected --classifier or --classifier_config with it")
        return None
    config = given.get("classifier_config", "imagenet256_classifier")

    def check(model: nn.Module) -> None:
        if not getattr(model, "num_classes", None) or hasattr(model, "unet"):
            raise UserError(f"config {config}: {type(model).__name__} is no classifier")

    return open_model(config, given.get("classifier"), device, precision, check)[0]
