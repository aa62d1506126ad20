"""A model ready to run: device and precision chosen, weights loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from ldm.checkpoints.load import build_empty, load
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
) -> tuple[nn.Module, str]:
    """Load a model in `full` (fp32) or `bf16` precision; `auto` is bf16 for a large model where the hardware has it.

    `full` turns off TensorFloat-32 in the convolutions of this process, which torch has on by default: its products
    have 10 bits of mantissa, as float16 has.

    Args:
        file: the weights, possibly in several files; by default the config's own.
        check: called with the model before there is anything in it, to refuse one that is of another kind.

    Returns:
        The model and the precision chosen.
    """
    node = load_config(config)
    if "model" not in node:
        raise UserError(f"config {config}: it has no `model`")
    empty = build_empty(node.model)
    if check is not None:
        check(empty)
    if precision == "auto":
        size = sum(parameter.numel() for parameter in empty.parameters())
        precision = "bf16" if size > BIG and has_fast_bf16(device) else "full"
    if precision == "full":
        torch.backends.cudnn.allow_tf32 = False
    return load(node, file, device, torch.bfloat16 if precision == "bf16" else torch.float32), precision
