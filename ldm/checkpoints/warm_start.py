"""Warm starts of training from published weights: loaded strictly, and initialised where no file can have them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import CLIP_VISION_FILES, OFFICIAL, TEXT, VISUAL, clip_vision, is_skipped
from ldm.checkpoints.load import choose, fill, read_files, take
from ldm.checkpoints.surgery import FIRST_CONV, expand_in_channels, first_conv
from ldm.utils.errors import UserError
from ldm.utils.random import generator

log = logging.getLogger(__name__)

NETWORKS = ("unet.", "autoencoder.")
ENCODER = "conditioner.encoder."
WHERE = "open_clip's ViT-L-14 weights 'openai', or openai/clip-vit-large-patch14 from Hugging Face"


def warm_start(
    model: nn.Module,
    files: Sequence[str | Path],
    clip_file: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Fill a latent diffusion model for training, in float32, and log where each part comes from.

    The UNet and the autoencoder must be complete in `files`; a UNet with fewer input channels is extended with zeros.
    CLIP comes from `clip_file`, or from `files` if they have it; the bottleneck (mapper, final_ln, proj_out,
    learnable_vector) comes from `files` if they have it, and is initialised otherwise. Everything else must be in the
    files.

    Args:
        model: a `LatentDiffusion`, on the meta device or not. Its parameters are replaced: create the optimizer later.
        files: Stable Diffusion 1.x or Paint by Example, or files of this package that complete each other.
        clip_file: a CLIP model or its vision tower, with open_clip's or Hugging Face's names.

    Raises:
        UserError: a file is not complete, or CLIP's tower is missing.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    encoder = [name for name in shapes if name.startswith(ENCODER)]
    head = [name for name in shapes if not name.startswith((*NETWORKS, ENCODER))]
    has_image_tower = VISUAL + "class_embedding" in shapes
    if clip_file is not None and not has_image_tower:
        raise UserError(f"warm start: {clip_file} was given, but the model has no CLIP image tower")
    tensors, source = read_files(files)
    tensors = _widen(tensors, shapes, source)

    tower = VISUAL + "class_embedding" if has_image_tower else TEXT + "token_embedding.weight"
    encoder_here = clip_file is None and _holds(tensors, tower)
    head_here = any(_holds(tensors, name) for name in head)
    if encoder and clip_file is None and not encoder_here:
        kind = "image" if has_image_tower else "text"
        raise UserError(f"checkpoint {source}: no CLIP {kind} tower found, expected --clip FILE with one: {WHERE}")

    dropped = ("cond_stage_model.transformer.text_model.", TEXT)
    if not encoder_here:
        dropped = ("cond_stage_model.transformer.", ENCODER)
    elif not has_image_tower:
        dropped = ()
    wanted = [name for name in shapes if name.startswith(NETWORKS)] + encoder * encoder_here + head * head_here
    values = take(
        {name: shapes[name] for name in wanted},
        tensors,
        source,
        skip=lambda name: is_skipped(name) or name.startswith(dropped),
        device=device,
    )
    if left := sum(name.startswith(dropped) for name in tensors):
        log.info("warm start: left out %d tensors of the file's own CLIP (names: %s)", left, ", ".join(dropped))
    if encoder and not encoder_here:
        values |= _clip_image_tower({name: shapes[name] for name in encoder}, clip_file, device)
        log.info("warm start: CLIP image tower from %s", clip_file)
    if head and not head_here:
        values |= {name: initial(name, shapes[name], seed).to(device) for name in head}
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in head)
        log.info("warm start: initialised at random (normal, seed %d): %s", seed, ", ".join(parts))
    fill(model, values)
    return model


def initial(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Return the initial value of a trained parameter, a function of its name and the seed.

    Matrices are normal with the variance of PyTorch's default, 1 / (3 fan_in); norms start as the identity, biases at 0
    and the learnable vector, which stands for a context token, as standard normal.
    """
    if name.endswith("bias"):
        return torch.zeros(shape)
    if name.endswith("weight") and len(shape) == 1:
        return torch.ones(shape)
    noise = torch.randn(shape, generator=generator(seed, "initial", name))
    return noise if name.endswith("learnable_vector") else noise / (3 * shape[1:].numel()) ** 0.5


def _widen(tensors: dict[str, Tensor], shapes: Mapping[str, torch.Size], source: str) -> dict[str, Tensor]:
    conv = first_conv(tensors)
    if conv is None or FIRST_CONV not in shapes or tensors[conv].ndim != 4:
        return tensors  # `take` reports it as missing or misshapen
    have, wanted = tensors[conv].shape[1], shapes[FIRST_CONV][1]
    if have >= wanted:
        return tensors
    log.info("warm start: UNet extended from %d to %d input channels, the new ones zero", have, wanted)
    return expand_in_channels(tensors, wanted, source)


def _holds(tensors: Mapping[str, Tensor], name: str) -> bool:
    return any(part in tensors for dialect in OFFICIAL for part in dialect(name))


def _clip_image_tower(
    shapes: Mapping[str, torch.Size], file: str | Path, device: str | torch.device
) -> dict[str, Tensor]:
    tensors = read_tensors(file)
    dialect = choose(shapes, tensors, [clip_vision(*kind) for kind in CLIP_VISION_FILES])
    projection = ("proj", "position_ids", "visual_projection.weight")
    return take(
        shapes,
        tensors,
        str(file),
        dialect,
        skip=lambda name: name.endswith(projection),
        within=VISUAL,
        device=device,
    )
