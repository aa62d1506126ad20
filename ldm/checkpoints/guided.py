"""The architecture of a U-Net, or of ADM's classifier, inferred from its tensors.

A file of guided-diffusion is a bare state dict: the options of its network are on a command line somewhere else. Nearly
all of them show in names and shapes. The number of heads, the order of q, k and v and the dropout do not.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Shapes = Mapping[str, Sequence[int]]  # by the names of `UNet` or `Classifier`, without any root
Stage = dict[int, dict[str, Sequence[int]]]  # index of a layer -> names and shapes of its tensors

FIRST_CONV = "input_blocks.0.0.weight"
CONTEXT = "middle_block.1.transformer_blocks."


def infer_unet(shapes: Shapes) -> dict[str, Any]:
    """Infer parameters of `UNet` by name; empty if the tensors are not a U-Net's.

    An option whose tensors are missing is None or left out.
    """
    if FIRST_CONV not in shapes or "out.2.weight" not in shapes:
        return {}
    levels = _levels(shapes)
    width = _length(shapes, "time_embed.0.weight", 1)
    depth = len({name.split(".")[3] for name in shapes if name.startswith(CONTEXT)})
    found = {
        "in_channels": _length(shapes, FIRST_CONV, 1),
        "out_channels": _length(shapes, "out.2.weight", 0),
        "model_channels": width,
        "num_res_blocks": len(levels[0]) - 1 if levels else None,
        "attention_resolutions": [2**k for k, level in enumerate(levels) if any(_attends(stage) for stage in level)],
        "channel_mult": [_multiple(_length(level[0].get(0, {}), "out_layers.3.weight", 0), width) for level in levels],
        "num_classes": _length(shapes, "label_emb.weight", 0),
        "use_scale_shift_norm": _scales_and_shifts(shapes),
        "context_dim": _length(shapes, f"{CONTEXT}0.attn2.to_k.weight", 1),
        "transformer_depth": max(depth, 1),
    }
    if len(levels) > 1:  # with one level nothing changes the resolution
        found["resblock_updown"] = _raises(levels[-1][-1]) == "residual"
    return found


def infer_classifier(shapes: Shapes) -> dict[str, Any]:
    """Infer the plain parameters of `Classifier` by name; empty if the tensors are not a classifier's."""
    if FIRST_CONV not in shapes or "out.2.positional_embedding" not in shapes:
        return {}
    return {
        "model_channels": _length(shapes, "time_embed.0.weight", 1),
        "num_classes": _length(shapes, "out.2.c_proj.weight", 0),
        "use_scale_shift_norm": _scales_and_shifts(shapes),
    }


def differences(file: Shapes, model: Shapes) -> dict[str, tuple[Any, Any]]:
    """Return the options that differ, each with its values in the file and in the model.

    Between a U-Net and a classifier there is one, `network`. The result is empty unless each of them is one of the two.
    """
    (theirs, found), (ours, wanted) = (
        ("U-Net", unet) if (unet := infer_unet(shapes)) else ("classifier", infer_classifier(shapes))
        for shapes in (file, model)
    )
    if not found or not wanted:
        return {}
    if theirs != ours:
        return {"network": (theirs, ours)}
    return {name: (value, wanted[name]) for name, value in found.items() if name in wanted and value != wanted[name]}


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Return differences as the end of a message, or "": `; the file has num_classes 1000 (the config: none)`."""
    if "network" in differing:
        return "; the file holds a {}, the config describes a {}".format(*differing["network"])
    named = ", ".join(f"{name} {word(there)} (the config: {word(here)})" for name, (there, here) in differing.items())
    return named and f"; the file has {named}"


def word(value: Any) -> str:
    """Return the value of an option as YAML spells it, except that None is `none`."""
    return "none" if value is None else str(value).lower()


def _levels(shapes: Shapes) -> list[list[Stage]]:
    """Return the stages of the way up, level by level, full size first; the other levels end by doubling the side."""
    stages: dict[int, Stage] = {}
    for name, shape in shapes.items():
        if place := re.fullmatch(r"output_blocks\.(\d+)\.(\d+)\.(.+)", name):
            stages.setdefault(int(place[1]), {}).setdefault(int(place[2]), {})[place[3]] = shape
    levels: list[list[Stage]] = [[]]
    for _, stage in sorted(stages.items()):
        levels[-1].append(stage)
        if _raises(stage):
            levels.append([])
    return [level for level in reversed(levels) if level]


def _raises(stage: Stage) -> str | None:
    """Return the layer that doubles the side at the end of a stage: `residual`, `convolution` or None."""
    later = [layer for index, layer in stage.items() if index > 0]
    if any("in_layers.2.weight" in layer for layer in later):
        return "residual"
    return "convolution" if any("conv.weight" in layer for layer in later) else None


def _attends(stage: Stage) -> bool:
    return any("proj_out.weight" in layer for layer in stage.values())


def _scales_and_shifts(shapes: Shapes) -> bool:
    """Return whether the embedding has two numbers per channel, not one."""
    embedding, image = (_length(shapes, f"middle_block.0.{name}.weight", 0) for name in ("emb_layers.1", "in_layers.2"))
    return embedding is not None and image is not None and embedding == 2 * image


def _length(shapes: Shapes, name: str, axis: int) -> int | None:
    shape = shapes.get(name, ())
    return int(shape[axis]) if len(shape) > axis else None


def _multiple(width: int | None, base: int | None) -> float | None:
    """Return the multiple of `base` from which `UNet` computes `width` again, by rounding down."""
    if not width or not base:
        return None
    if width % base == 0:
        return width // base
    return width / base if int(width / base * base) == width else math.nextafter(width / base, math.inf)
