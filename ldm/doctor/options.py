"""The network options of a guided-diffusion file, inferred from its tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints.guided import differences, in_words, infer_classifier, infer_unet, word
from ldm.checkpoints.manifest import read_manifest
from ldm.doctor.file import Known
from ldm.doctor.report import Finding
from ldm.models.unet import UNet

NO_TRACE = "The file does not show the width of the heads, the schedule and image_size: set those of its training"


def own_options(tensors: Mapping[str, Tensor]) -> list[Known]:
    """Return the pixel-space U-Net that a file's tensors describe, as a list of at most one known model."""
    inferred = infer_unet(_shapes(tensors))
    if not inferred or inferred["context_dim"]:
        return []
    try:
        with torch.device("meta"):
            unet = UNet(**inferred, num_heads=1)
    except Exception:  # a file can contain anything
        return []
    return [Known("guided-diffusion's U-Net, with options of its own", _shapes(unet.state_dict()), None, True)]


def options(tensors: Mapping[str, Tensor], known: Known | None) -> list[Finding]:
    """Describe the options of a bare file's network, and the config that fits it.

    Args:
        known: the model most similar to the file.
    """
    shapes = _shapes(tensors)
    inferred = infer_unet(shapes) or infer_classifier(shapes)
    if not inferred or known is None:
        return []
    hidden = () if inferred.get("context_dim") else ("context_dim", "transformer_depth")
    listed = ", ".join(f"{name} {word(value)}" for name, value in inferred.items() if name not in hidden)
    if known.config is None:
        text = f"{listed}. No config that ships fits it; this one does. {NO_TRACE}"
        return [Finding("options", "note", text, table=_config(inferred))]
    if differing := differences(shapes, known.shapes):
        return [Finding("options", "note", f"{listed}{in_words(differing)}")]
    return [Finding("options", "ok", f"{listed}: those of config {known.config}")]


def _config(inferred: Mapping[str, Any]) -> list[str]:
    """Return the lines of a config for a U-Net with these options."""
    base = infer_unet(read_manifest("guided_256"))
    changed = {
        name: "null" if value is None else word(value) for name, value in inferred.items() if value != base.get(name)
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
    return lines + ["    variance: fixed_large"] * (inferred["out_channels"] == inferred["in_channels"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
