"""Changes to official checkpoints, by their own names: more input channels, moving averages for raw weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ldm.checkpoints.keymaps import EMA_COUNTERS, ema_name, official, own, tally
from ldm.utils.errors import UserError

FIRST_CONV = "unet.input_blocks.0.0.weight"


def first_conv(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the UNet's first convolution in a file, official or our own; None without a UNet."""
    return next((name for name in official(FIRST_CONV) + own(FIRST_CONV) if name in tensors), None)


def expand_in_channels(tensors: Mapping[str, Tensor], in_channels: int, source: str) -> dict[str, Tensor]:
    """Add input channels to the UNet's first convolution, with weights of 0: it ignores them until it is trained.

    Everything else stays bit-identical.

    Args:
        source: the file's name, for messages.

    Raises:
        UserError: there is no such convolution, or it already has that many channels.
    """
    name = first_conv(tensors)
    if name is None:
        raise UserError(f"checkpoint {source}: no UNet found ({official(FIRST_CONV)[0]} is missing)")
    weight = tensors[name]
    if weight.ndim != 4:
        raise UserError(f"checkpoint {source}: {name} is {tuple(weight.shape)}, expected a 2-D convolution")
    have = weight.shape[1]
    if have >= in_channels:
        raise UserError(f"checkpoint {source}: its UNet already has {have} input channels ({in_channels} requested)")
    out, _, height, width = weight.shape
    return {**tensors, name: torch.cat([weight, weight.new_zeros(out, in_channels - have, height, width)], dim=1)}


def prefer_ema(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], int]:
    """Replace the raw UNet weights by a full set of moving averages (`model_ema.*`), and drop the set.

    Returns:
        the tensors, and how many were replaced: 0 without such a set, as in sd-v1-4.ckpt, whose weights are averages.

    Raises:
        UserError: the set is not complete.
    """
    averages = {name for name in tensors if name.startswith("model_ema.")} - set(EMA_COUNTERS)
    if not averages:
        return dict(tensors), 0
    raw = {name: ema_name(name) for name in tensors if name.startswith("model.")}
    missing = [average for average in raw.values() if average not in averages]
    if problems := tally({"missing": missing, "unexpected": sorted(averages - set(raw.values()))}):
        raise UserError(f"checkpoint {source}: its moving averages do not match its raw weights: {problems}")
    kept = {name: tensors[raw.get(name, name)] for name in tensors if not name.startswith("model_ema.")}
    return kept, len(raw)
