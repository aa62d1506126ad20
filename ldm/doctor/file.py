"""Identification of a weights file: its format, and the known model most similar by names and shapes of tensors."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ldm.checkpoints.keymaps import (
    CLIP_EXTRAS,
    EMA_COUNTERS,
    OFFICIAL,
    Dialect,
    beside_clip,
    guided,
    is_skipped,
    official,
    official_flat,
    own,
    tally,
)
from ldm.checkpoints.legacy import MAGIC
from ldm.checkpoints.load import build_empty
from ldm.checkpoints.manifest import read_manifest
from ldm.compat.configs import load_config
from ldm.doctor.report import Finding
from ldm.utils.sizes import size

Shapes = Mapping[str, tuple[int, ...]]

PUBLISHED = {  # manifest -> title, config of the same networks
    "paint_by_example": ("Paint by Example (its model.ckpt)", "v1"),
    "sd_v1": ("Stable Diffusion 1.x (sd-v1-4.ckpt)", "sd_v1"),
    "guided_256": ("guided-diffusion 256x256, unconditional (CelebA-HQ's, Places2's)", "celeba256"),
    "guided_256_class": ("guided-diffusion 256x256, class-conditional (ImageNet's)", "imagenet256"),
    "guided_256_classifier": ("guided-diffusion 256x256, classifier", "imagenet256_classifier"),
}
INPAINTING = "Stable Diffusion 1.x with 9 input channels (SD-inpainting, or extended for training)"
OWN = {  # config -> title, prefix of the names
    "v1": ("Paint by Example, as this package writes it", ""),
    "sd_v1": ("Stable Diffusion 1.x, as this package writes it", ""),
    "toyworld": ("ToyWorld's exemplar model", ""),
    "toyworld_text": ("ToyWorld's text-to-image model", ""),
    "toyworld_prior": ("ToyWorld's prior", ""),
    "toyworld_judge": ("ToyWorld's judge", "judge."),
    "models/toyworld/clip": ("ToyWorld's CLIP", ""),
}

FIRST_CONV = "model.diffusion_model.input_blocks.0.0.weight"
PARTS = {  # longer prefixes before shorter ones
    "unet.": "UNet",
    "model.diffusion_model.": "UNet",
    "autoencoder.": "autoencoder",
    "first_stage_model.": "autoencoder",
    "conditioner.encoder.": "CLIP",
    "cond_stage_model.transformer.": "CLIP",
    **dict.fromkeys(CLIP_EXTRAS, "CLIP"),
    "conditioner.": "bottleneck",
    "cond_stage_model.": "bottleneck",
    "proj_out.": "bottleneck",
    "learnable_vector": "bottleneck",
}
FOREIGN = {  # prefixes of names -> kind of file
    ("down_blocks.", "mid_block.", "encoder.down_blocks."): "a network of a diffusers folder",
    ("lora_unet_", "lora_te_", "unet.down_blocks."): "a LoRA or a part of a diffusers pipeline",
    ("text_model.", "vision_model.", "visual."): "a CLIP model, usable as the --clip of training",
}


@dataclass(frozen=True)
class Known:
    """A model that a file may contain.

    Attributes:
        shapes: names, as in the file, and shapes of its tensors.
        config: with the same networks, if there is one.
        whole: the model comes as a single file, as published ones do.
    """

    title: str
    shapes: Shapes
    config: str | None
    whole: bool


def container(path: Path, tensors: Mapping[str, Tensor]) -> Finding:
    """Describe a file that could be read: its format, its size and the types of its tensors."""
    with open(path, "rb") as file:
        head = file.read(len(MAGIC))
    kinds = {b"PK": "torch zip", MAGIC: "torch, from before 1.6"}
    kind = next((kind for start, kind in kinds.items() if head.startswith(start)), "safetensors")
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    numbers = sum(tensor.numel() for tensor in tensors.values())
    held = " and ".join(f"{count} {dtype}" for dtype, count in types.most_common())
    text = f"{path.name}: {kind}, {size(path.stat().st_size)}, {held} tensors, {numbers / 1e6:,.1f} M numbers"
    return Finding("file", "ok", text)


def known_models(config: str | None = None) -> list[Known]:
    """Return the models to compare with: all published models and our own configs, or only those of one config."""
    if config is not None:
        shapes, published = _shapes_of(config), (official, official_flat, guided)
        return [
            Known(f"config {config}", _spelt(shapes, dialect), config, dialect in published) for dialect in OFFICIAL
        ]
    known = []
    for name, (title, same) in PUBLISHED.items():
        shapes = read_manifest(name)
        known.append(Known(title, shapes, same, True))
        if any(".transformer." in key for key in shapes):
            known.append(Known(title, {official_flat(key)[0]: shape for key, shape in shapes.items()}, same, True))
        if name == "sd_v1":
            out, _, *kernel = shapes[FIRST_CONV]
            known.append(Known(INPAINTING, {**shapes, FIRST_CONV: (out, 9, *kernel)}, same, True))
    for name, (title, root) in OWN.items():
        ours = _shapes_of(name)
        for dialect in (own, beside_clip):
            shapes = {root + key: shape for key, shape in _spelt(ours, dialect).items()}
            known.append(Known(title, shapes, name, False))
    return known


def nearest_model(tensors: Mapping[str, Tensor], candidates: list[Known]) -> tuple[Known | None, Finding]:
    """Find the model that shares most of a file's names and shapes, or None, and describe how the two differ."""
    found = {
        name: tuple(tensor.shape)
        for name, tensor in tensors.items()
        if not name.startswith("model_ema.") or name in EMA_COUNTERS
    }
    known = max(candidates, key=lambda candidate: _likeness(found, candidate))
    if _likeness(found, known)[0] < 0.1:
        whose = next((whose for start, whose in FOREIGN.items() if any(n.startswith(start) for n in found)), "")
        text = f"unknown; the file contains {tally({'tensors': found})}"
        return None, Finding("model", "PROBLEM", text + (f". It looks like {whose}." if whose else ""), "unknown model")

    absent = _absent(found, known)
    differences = {
        "missing": [name for name in _weights(known) if name not in found and part(name) not in absent],
        "unexpected": [n for n in found if n not in known.shapes and not is_skipped(n)],
        "of another shape": [
            f"{name} {found[name]}, expected {shape}"
            for name, shape in known.shapes.items()
            if found.get(name, shape) != shape
        ],
    }
    held = ", ".join(dict.fromkeys(part(name) for name in _weights(known) if name in found))
    aside = f"; not in it: {', '.join(absent)}, give their files too to have them tried" if absent else ""
    if not any(differences.values()):
        there = len(found.keys() & known.shapes.keys())
        short = f"{known.title} ({held})" if absent else known.title
        return known, Finding("model", "ok", f"{known.title}: {held}; all {there} tensors are present{aside}", short)
    advice = ""
    if any(part(name) == "bottleneck" for name in differences["missing"]):
        advice = (
            "; without its bottleneck (mapper, final_ln, proj_out, learnable_vector) the exemplar's condition would be "
            "random, and pictures black, washed out or noise: find a complete file"
        )
    if differences["of another shape"] and found.get(FIRST_CONV, (0, 9))[1] == 4:
        advice += "; ldm modify-checkpoints adds input channels, to start training from"
    short = ", ".join(f"tensors {problem}: {len(names)}" for problem, names in differences.items() if names)
    text = f"most similar to {known.title}, of which it contains {held}: {tally(differences)}{aside}{advice}"
    return known, Finding("model", "PROBLEM", text, short)


def part(name: str) -> str:
    """Return the network of a model that a tensor belongs to."""
    return next((title for prefix, title in PARTS.items() if name.startswith(prefix)), "network")


def _weights(known: Known) -> list[str]:
    """Return the names that a file of a model must have: all except those of buffers."""
    return [name for name in known.shapes if not is_skipped(name) or name.startswith(CLIP_EXTRAS)]


def _absent(found: Shapes, known: Known) -> list[str]:
    """Return the parts missing from a file that may be in another one: models come as one file or as several."""
    present = {part(name) for name in found}
    absent = [title for title in dict.fromkeys(map(part, _weights(known))) if title not in present]
    if "UNet" not in present:
        return absent
    return [] if known.whole else [title for title in absent if title != "bottleneck"]


def _likeness(found: Shapes, known: Known) -> tuple[float, float]:
    """Return the share of common names among all, and their number; a name with another shape counts half."""
    present = {part(name) for name in found}
    expected = [name for name in _weights(known) if part(name) in present]
    surplus = [name for name in found if name not in known.shapes and not is_skipped(name)]
    same = sum((found[name] == known.shapes[name]) + 1 for name in expected if name in found) / 2
    return same / max(1, len(expected) + len(surplus)), same


def _shapes_of(config: str) -> Shapes:
    node = load_config(config)
    model = build_empty(node.model if "model" in node else node)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _spelt(shapes: Shapes, dialect: Dialect) -> Shapes:
    """Rename tensors to a dialect; tensors that it splits share the first axis equally."""
    spelt = {}
    for name, shape in shapes.items():
        names = dialect(name)
        spelt |= dict.fromkeys(names, (shape[0] // len(names), *shape[1:]) if len(names) > 1 else shape)
    return spelt
