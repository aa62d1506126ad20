"""Tensor files: torch's formats and safetensors, read lazily and without executing anything."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm.checkpoints.legacy import MAGIC, read_legacy
from ldm.checkpoints.safe_pickle import one_line
from ldm.checkpoints.torch_zip import read_torch_zip
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing

# safetensors' names of dtypes, in the order by which its writer sorts tensors
SAFETENSORS = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a torch file (`.ckpt`, `.pt`, `.bin`, TorchScript) or safetensors; the content decides.

    The tensors are views of the mapped file: nothing is read before it is used, and nothing is written back.

    Raises:
        UserError: there is no such file, it is not a complete checkpoint, or it tries to run something.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UserError(f"checkpoint {path}: {reason(error)}") from error
    if size == 0:
        raise UserError(f"checkpoint {path}: the file is empty (an interrupted download?)")
    if head.startswith(b"PK\x03\x04"):
        return read_torch_zip(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"checkpoint {path}: a Git LFS pointer, not the weights (run `git lfs pull`)")
    if head.startswith(MAGIC):
        return read_legacy(path)
    if head.startswith(b"\x80"):
        raise UserError(f"checkpoint {path}: a bare pickle, not a file that torch.save wrote; not opened")
    if head.lstrip().startswith(b"<"):
        raise UserError(f"checkpoint {path}: a web page, not the weights (was a log-in or an error page downloaded?)")
    raise UserError(f"checkpoint {path}: neither a torch zip file nor safetensors")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the text that `save_tensors` wrote beside the tensors of a safetensors file.

    Raises:
        UserError: there is no such file, or it is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"checkpoint {path}: {one_line(error)}") from error


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file, one tensor at a time: memory never holds a second copy of all of them.

    The file appears under its name only when it is complete and on the disk. (safetensors' own `save_file` needs all
    tensors at once on the CPU, contiguous and in the file's dtype; older versions copy even those.)

    Args:
        tensors: on any device, of any layout; tensors that share memory are each written in full.
        dtype: dtype of the floating-point tensors in the file; by default their own.

    Raises:
        UserError: the file cannot be written.
    """
    dtypes = {name: dtype if dtype and t.is_floating_point() else t.dtype for name, t in tensors.items()}
    rank = {kind: k for k, kind in enumerate(SAFETENSORS)}
    names = sorted(tensors, key=lambda name: (rank[dtypes[name]], name))
    sizes = {name: tensors[name].numel() * dtypes[name].itemsize for name in names}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in names:
        start, end = end, end + sizes[name]
        kind, shape = SAFETENSORS[dtypes[name]], list(tensors[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    buffer = torch.empty(max(sizes.values(), default=0), dtype=torch.uint8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            raw = buffer[: sizes[name]]
            raw.view(dtypes[name]).view(tensors[name].shape).copy_(tensors[name].detach())
            file.write(raw.numpy())
        file.flush()
        os.fsync(file.fileno())


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `{"state_dict": tensors}` for `torch.load` in other code bases, or safetensors by the name's suffix.

    Raises:
        UserError: the file cannot be written.
    """
    if Path(path).suffix == ".safetensors":
        save_tensors(path, tensors)
        return
    with replacing(path) as temporary:
        try:
            torch.save({"state_dict": dict(tensors)}, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path}: broken safetensors, or cut short ({one_line(error)})") from error
