"""Examination of weights files: what they are, whether they are complete, and whether their networks work."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.load import build_empty
from ldm.checkpoints.surgery import first_conv
from ldm.compat.configs import load_config
from ldm.doctor.file import INPAINTING, Known, container, known_models, nearest_model
from ldm.doctor.networks import BLIND, HOLE, KEEP, MARGIN, Trial
from ldm.doctor.options import options, own_options
from ldm.doctor.report import Finding
from ldm.doctor.weights import MASK_FIRST, MASK_LAST, averages, damage, is_untrained, order_by_weights
from ldm.utils.errors import UserError
from ldm.utils.memory import available
from ldm.utils.sizes import size

SIDE = 256  # pixels of the pictures that a large latent model is tried on
PIXEL_SIDE = 128  # the same for a pixel-space model, where a pixel costs as much as a latent's cell


def examine(
    files: Sequence[Path], config: str | None, device: torch.device, pictures: Callable[[int], Tensor]
) -> list[Finding]:
    """Examine a model in one or several files, without executing any pickle.

    Args:
        config: the config that the weights are for, by default that of the most similar known model.
        pictures: side in pixels -> test pictures (B, 3, side, side) in [-1, 1].

    Raises:
        UserError: a file cannot be read, or two files contain the same tensor.
    """
    findings: list[Finding] = []
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _read(file)
        if twice := tensors.keys() & found.keys():
            raise UserError(f"checkpoint {file}: {min(twice)} is also in an earlier file")
        tensors |= found
        findings.append(container(file, found))
    source = ", ".join(map(str, files))
    known, model = nearest_model(tensors, known_models(config) + ([] if config else own_options(tensors)))
    used, average = averages(tensors, source)
    findings += [model, *options(tensors, known), damage(used), average]
    trial, errors = _try(known, used, source, device, pictures)
    return [*findings, *_input(used, known, errors), *trial]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    except UserError as error:
        beside = file.parent / "weights.safetensors"
        if file.name == "trainer.ckpt" and beside.is_file():
            raise UserError(f"{error}; this is a training state, its weights are in {beside}") from error
        raise


def _try(
    known: Known | None, tensors: dict[str, Tensor], source: str, device: torch.device, pictures: Callable
) -> tuple[list[Finding], dict]:
    if known is None or known.config is None:
        return [
            Finding("networks", "skipped", "not run: no known config of a diffusion model fits (--config names one)")
        ], {}
    node = load_config(known.config)
    conv = first_conv(tensors)
    if "model" in node and known.title == INPAINTING and conv:
        OmegaConf.update(node, "model.params.unet.params.in_channels", tensors[conv].shape[1])
    model = build_empty(node.model) if "model" in node else None
    if not hasattr(model, "unet"):
        return [Finding("networks", "skipped", "not run: not a diffusion model")], {}
    needed, free = _needed(model), available(device)
    if needed > free:
        text = f"not run: need {size(needed)} of memory, {size(free)} available on {device}"
        return [Finding("networks", "skipped", text)], {}
    large = max(SIDE if model.downsampling > 1 else PIXEL_SIDE, model.multiple)
    side = min(model.image_size, large // model.multiple * model.multiple)
    return Trial(model, tensors, source, pictures(side), device).run()


def _needed(model: nn.Module) -> int:
    """Return the bytes of the largest network in float32, plus a quarter of that for activations."""
    return max(5 * sum(p.numel() for p in network.parameters()) for network in model.children())


def _input(tensors: dict[str, Tensor], known: Known | None, errors: dict[tuple[str, str], float]) -> list[Finding]:
    """Examine the layout of the UNet's input channels, as far as weights or a trial show it."""
    conv = first_conv(tensors)
    if conv is None or tensors[conv].ndim != 4:
        return []
    weight = tensors[conv]
    channels = weight.shape[1]
    if channels == 3:
        return [Finding("input", "ok", "3 channels: the noisy picture itself, no latent")]
    if channels == 4:
        return [Finding("input", "ok", "4 channels: only the noisy latent (text-to-image or unconditional)")]
    if channels != 9:
        return [Finding("input", "note", f"{channels} channels, an unknown layout")]
    if is_untrained(weight):
        text = "9 channels, the last 5 with weights of 0: never trained, so that picture and mask have no effect"
        return [
            Finding(
                "input",
                "PROBLEM",
                f"{text}. Usable to start training from, not for editing",
                "input channels for picture and mask never trained",
            )
        ]
    wanted = (MASK_FIRST, HOLE) if known is not None and known.title == INPAINTING else (MASK_LAST, KEEP)
    (found, polarity), how = layout(weight, errors)
    if found is None:
        text = f"9 channels in an unknown order ({how}); expected {wanted[0]}, mask {wanted[1]}"
        return [Finding("input", "note", text)]
    text = f"9 channels: {found}, mask {polarity or 'of unknown polarity'} ({how})"
    if found != wanted[0] or polarity not in (None, wanted[1]):
        text += f". This model is fed {wanted[0]}, mask {wanted[1]}, and would misread mask and picture"
        return [Finding("input", "PROBLEM", text, f"input channels are {found}, mask {polarity or 'unknown'}")]
    return [Finding("input", "ok", text)]


def layout(weight: Tensor, errors: Mapping[tuple[str, str], float]) -> tuple[tuple[str | None, str | None], str]:
    """Determine the order of the channels and the mask's polarity, None where unknown, and describe the evidence."""
    if len(errors) > 1 and min(errors.values()) < BLIND:
        order, polarity = min(errors, key=errors.get)
        best = errors[order, polarity]
        other_order = min(error for (name, _), error in errors.items() if name != order)
        other_polarity = errors[order, HOLE if polarity == KEEP else KEEP]
        how = f"tried: error {best:.2g}; {other_polarity:.2g} for the other polarity, {other_order:.2g} the other order"
        clear = order if other_order > MARGIN * best else None
        return (clear, polarity if clear and other_polarity > MARGIN * best else None), how
    order, scores = order_by_weights(weight)
    similarities = ", ".join(f"{score:.3f} for {name}" for name, score in scores.items())
    return (order, None), f"from the similarity of filters: {similarities}"
