"""Examination of weights without running them: damage, moving averages, the order of the UNet's input channels."""

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.checkpoints.keymaps import EMA_COUNTERS, ema_name
from ldm.checkpoints.surgery import prefer_ema
from ldm.doctor.report import Finding
from ldm.utils.errors import UserError

LATENT = 4  # channels of a latent in every known model
MASK_LAST, MASK_FIRST = "[noisy, masked, mask]", "[noisy, mask, masked]"
FIRST_MASKED = {MASK_LAST: LATENT, MASK_FIRST: LATENT + 1}  # where the masked image's latent begins


def damage(tensors: Mapping[str, Tensor]) -> Finding:
    """Look for NaN, infinities, and matrices of zeros, which are untrained."""
    broken, zero, matrices = [], [], 0
    for name, tensor in tqdm(tensors.items(), desc="weights", unit="tensor", leave=False, disable=None):
        if not tensor.is_floating_point():
            continue
        peak = tensor.abs().max().item() if tensor.numel() else 0.0  # the maximum propagates NaN and inf
        if not peak < float("inf"):
            broken.append(name)
        if tensor.ndim > 1:
            matrices += 1
            if peak == 0:
                zero.append(name)
    if broken:
        text = f"tensors with NaN or infinite numbers: {_some(broken)}; training diverged, or the file is damaged"
        return Finding("weights", "PROBLEM", text, "NaN or infinite weights")
    if zero:
        status = "PROBLEM" if 10 * len(zero) > matrices else "note"
        return Finding("weights", status, f"all finite; matrices of zeros: {_some(zero)}", "matrices of zeros")
    return Finding("weights", "ok", "all finite, no matrix of zeros")


def averages(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], Finding]:
    """Return the tensors that would be used, with moving averages (`model_ema.*`) preferred, and a finding on them.

    Averages that were never updated are the initial weights; averages that equal the raw weights are harmless.
    """
    raw = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    try:
        used, count = prefer_ema(tensors, source)
    except UserError as error:
        used = {name: tensor for name, tensor in tensors.items() if not name.startswith("model_ema.")}
        return used, Finding("averages", "PROBLEM", str(error).partition(": ")[2], "moving averages do not fit")
    if not count:
        return used, Finding("averages", "ok", "no separate averages: the weights are used as they are")
    differ = sum(not torch.equal(tensor, tensors[ema_name(name)]) for name, tensor in raw.items())
    updates = tensors.get(EMA_COUNTERS[1])
    made = "" if updates is None else f", {int(updates)} updates"
    if not differ:
        text = f"{count} moving averages{made}, all equal to the raw weights: never updated, or copied over them"
        return used, Finding("averages", "note", text, "moving averages equal the raw weights")
    text = f"{count} moving averages{made}; {differ} differ from the raw weights. The averages are used"
    if updates is not None and int(updates) == 0:
        text += ". They were never updated and are the initial weights of the training; use the raw weights"
        return used, Finding("averages", "PROBLEM", text, "moving averages were never updated")
    return used, Finding("averages", "ok", text)


def order_by_weights(weight: Tensor) -> tuple[str | None, dict[str, float]]:
    """Guess the order of the 9 input channels from the UNet's first convolution (out, 9, 3, 3).

    The network compares the noisy latent with that of the masked image. Both have the autoencoder's channels, so the
    filters of channel k of one come to resemble (up to sign) those of channel k of the other. The score of an order is
    the mean absolute cosine between them; for unrelated filters of N numbers it is 0.8 / sqrt(N) on average.

    Returns:
        The order, or None if neither stands out from chance and from the other; and the score of each order. The
        mask's polarity remains unknown: inverting the mask is a change of signs and of the bias.
    """
    filters = torch.nn.functional.normalize(weight.float().transpose(0, 1).flatten(1), dim=1)
    noisy = filters[:LATENT]
    scores = {
        order: (noisy * filters[first : first + LATENT]).sum(1).abs().mean().item()
        for order, first in FIRST_MASKED.items()
    }
    best, other = sorted(scores, key=scores.get, reverse=True)
    clear = scores[best] > max(3 / filters.shape[1] ** 0.5, 2 * scores[other])
    return (best if clear else None), scores


def is_untrained(weight: Tensor) -> bool:
    """Return whether all channels except the noisy latent have zero weights, as made by `ldm modify-checkpoints`."""
    return not weight[:, LATENT:].any()


def _some(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(islice(names, 3))}{', ...' if len(names) > 3 else ''})"
