"""Models filled from files, strictly: built without memory, then filled tensor by tensor."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ldm.checkpoints.guided import differences, in_words
from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.keymaps import CLIP_TOWERS, OFFICIAL, Dialect, guided, is_skipped, tally
from ldm.checkpoints.surgery import FIRST_CONV, prefer_ema
from ldm.config import build
from ldm.utils.errors import UserError
from ldm.utils.project import find_file

log = logging.getLogger(__name__)


def build_empty(node: DictConfig) -> nn.Module:
    """Build a model on the meta device: shapes without memory, and nothing initialised."""
    with torch.device("meta"):
        return build(node)


def read_files(files: Iterable[str | Path]) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of all files, preferring moving averages; return them and the files' names for messages.

    Raises:
        UserError: a file is not a checkpoint, or two have the same tensor.
    """
    files = list(files)
    tensors: dict[str, Tensor] = {}
    for file in files:
        found, averages = prefer_ema(read_tensors(file), str(file))
        if averages:
            log.info("%s: its %d moving averages (model_ema.*) are used, not the raw weights", file, averages)
        if twice := tensors.keys() & found.keys():
            raise UserError(f"checkpoint {file}: {min(twice)} is in an earlier file too, expected each tensor once")
        tensors |= found
    return tensors, ", ".join(map(str, files))


def choose(names: Iterable[str], tensors: Mapping[str, Tensor], dialects: Sequence[Dialect]) -> Dialect:
    """Return the dialect in which most of our names are found."""
    names = list(names)
    return max(dialects, key=lambda dialect: sum(all(part in tensors for part in dialect(name)) for name in names))


def take(
    shapes: Mapping[str, torch.Size],
    tensors: Mapping[str, Tensor],
    source: str,
    dialect: Dialect | None = None,
    skip: Callable[[str], bool] = is_skipped,
    within: str = "",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Take the tensors of the given names (ours) and shapes from a file's, strictly; return copies.

    Args:
        source: the file's name, for messages.
        dialect: that of the file's names; by default the best of `OFFICIAL`.
        skip: whether one of the file's names may be left over.
        within: root of our names, outside of which the file's tensors are ignored.
        device, dtype: of the copies.

    Raises:
        UserError: tensors are missing, left over, of another shape or of whole numbers. The message has their counts,
            the first three names, and the options of the network in which the file differs, as far as they show.
    """
    dialect = dialect or choose(shapes, tensors, OFFICIAL)
    parts = {name: dialect(name) for name in shapes}
    used = list(chain.from_iterable(parts.values()))
    missing = [part for part in used if part not in tensors]
    if len(missing) == len(used):
        raise UserError(f"checkpoint {source}: contains no tensors of the model, found {tally({'other': tensors})}")
    inside = dialect(within)[0]
    in_use = tuple(tower for tower in CLIP_TOWERS if any(part.startswith(tower) for part in used))
    surplus = [
        name
        for name in tensors.keys() - used
        if name.startswith(inside) and (not skip(name) or name.startswith(in_use))
    ]
    misshapen = {}
    for name, sources in parts.items():
        if all(part in tensors for part in sources):
            found = _joint_shape([tensors[part].shape for part in sources])
            if found != tuple(shapes[name]):
                misshapen[name] = f"{sources[0]} {found}, expected {tuple(shapes[name])}"
    whole = [part for part in used if part in tensors and not tensors[part].is_floating_point()]
    counted = {
        "missing": missing,
        "unexpected": sorted(surplus),
        "of another shape": misshapen.values(),
        "of whole numbers": [f"{part} {str(tensors[part].dtype).removeprefix('torch.')}" for part in whole],
    }
    if problems := tally(counted):
        hint = _architecture_hint(shapes, tensors, dialect)
        raise UserError(f"checkpoint {source}: does not fit the model: {problems}{hint}")
    return {name: _join([tensors[part] for part in sources], device, dtype) for name, sources in parts.items()}


def fill(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Replace all parameters and buffers of a model, which may be on the meta device.

    Raises:
        RuntimeError: one is left without a value.
    """
    model.load_state_dict(values, assign=True)
    empty = [name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.is_meta]
    if empty:  # e.g. a buffer outside the state dict: the network must make it when it is used
        raise RuntimeError(f"left on the meta device, without values: {', '.join(empty)}")


def fill_roots(model: nn.Module, roots: tuple[str, ...], files: Iterable[str | Path]) -> None:
    """Fill the networks of a model whose names start with `roots`, completely; leave the others as they are.

    Raises:
        UserError: a network is not complete in the files.
    """
    tensors, source = read_files(map(find_file, files))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith(roots)}
    model.load_state_dict(take(shapes, tensors, source), strict=False, assign=True)


def _architecture_hint(shapes: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], dialect: Dialect) -> str:
    """Return the end of a message: how the file's network differs, and what helps if only its input channels do."""
    ours = "unet." if FIRST_CONV in shapes else ""
    theirs = dialect(ours)[0]
    differing = differences(
        {name.removeprefix(theirs): tensor.shape for name, tensor in tensors.items() if name.startswith(theirs)},
        {name.removeprefix(ours): shape for name, shape in shapes.items() if name.startswith(ours)},
    )
    if ours and dialect is not guided and differing.keys() == {"in_channels"}:
        found, expected = differing["in_channels"]
        if found < expected:
            return "; ldm modify-checkpoints adds input channels"
        if found == 9:
            return f"; found a 9-channel checkpoint, for editing by example or inpainting, expected {expected} channels"
    return in_words(differing)


def _joint_shape(shapes: Sequence[torch.Size]) -> tuple[int, ...] | None:
    """Return the shape of tensors concatenated along the first axis; None if they do not fit together."""
    if len(shapes) == 1:
        return tuple(shapes[0])
    if any(len(shape) == 0 or shape[1:] != shapes[0][1:] for shape in shapes):
        return None
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _join(parts: Sequence[Tensor], device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """Return the parts as one contiguous tensor with memory of its own."""
    copies = [part.to(device, dtype, copy=True, memory_format=torch.contiguous_format) for part in parts]
    return copies[0] if len(copies) == 1 else torch.cat(copies)
