"""The options of the network in a file of guided-diffusion, which does not say them; but its tensors show them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints.guided import differences, in_words, infer_classifier, infer_unet, word
from ldm.checkpoints.manifest import read_manifest
from ldm.doctor.file import Known
from ldm.doctor.report import Finding
from ldm.models.unet import UNet

NO_TRACE = "How wide its heads are, its schedule and image_size leave no trace in a file: set those of its training"


def own_options(tensors: Mapping[str, Tensor]) -> list[Known]:
    """What else a file may hold: the U-Net, of pixels, that its own tensors tell of; none if they tell of none."""
    told = infer_unet(_shapes(tensors))
    if not told or told["context_dim"]:
        return []
    try:
        with torch.device("meta"):
            unet = UNet(**told, num_heads=1)
    except Exception:  # a file can hold anything
        return []
    return [Known("guided-diffusion's U-Net, with options of its own", _shapes(unet.state_dict()), None, True)]


def options(tensors: Mapping[str, Tensor], known: Known | None) -> list[Finding]:
    """The options of a bare file's network, and which config is for it.

    Args:
        known: what the file is nearest to.
    """
    shapes = _shapes(tensors)
    told = infer_unet(shapes) or infer_classifier(shapes)
    if not told or known is None:
        return []
    hidden = () if told.get("context_dim") else ("context_dim", "transformer_depth")
    said = ", ".join(f"{name} {word(value)}" for name, value in told.items() if name not in hidden)
    if known.config is None:
        text = f"{said}. No config here is for it, but this one. {NO_TRACE}"
        return [Finding("options", "note", text, table=_config(told))]
    if differing := differences(shapes, known.shapes):
        return [Finding("options", "note", f"{said}{in_words(differing)}")]
    return [Finding("options", "ok", f"{said}: those of config {known.config}")]


def _config(told: Mapping[str, Any]) -> list[str]:
    """The lines of a config for a U-Net of these options."""
    base = infer_unet(read_manifest("guided_256"))
    changed = {
        name: "null" if value is None else word(value) for name, value in told.items() if value != base.get(name)
    }
    lines = [
        "model:",
        "  include: models/adm_256.yaml",
        "  params:",
        "    image_size: 256",
        "    unet:",
        "      params:",
    ]
    lines += [f"        {name}: {value}" for name, value in {"num_head_channels": 64, **changed}.items()]
    return lines + ["    variance: fixed_large"] * (told["out_channels"] == told["in_channels"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
