"""Torch files from before torch 1.6, such as torchvision's VGG16: five pickles in a row, then the raw arrays.

The pickles are a magic number, a version, the platform, the content and the list of its storages' keys. An array is its
number of elements as an int64, then its bytes.
"""

import mmap
import pickle
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints.safe_pickle import SafeUnpickler, state_dict, unreadable
from ldm.utils.errors import UserError

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)


def read_legacy(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file that torch wrote before version 1.6; the tensors are views of the mapped file.

    Raises:
        UserError: the file is broken, cut short or not a state dict, or it tries to run something.
    """
    try:
        with open(path, "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        _, _, platform = (_LegacyUnpickler(path, memory).load() for _ in range(3))
        if platform["little_endian"] is not True:
            raise UserError(f"checkpoint {path}: written on a big-endian machine, which is not supported")
        start = memory.tell()
        survey = _LegacyUnpickler(path, memory)  # a first pass for types and sizes: the arrays come last
        survey.load()
        keys = _LegacyUnpickler(path, memory).load()
        storages = _map_storages(memory, keys, survey.storages)
        memory.seek(start)
        content = _LegacyUnpickler(path, memory, storages).load()
        return state_dict(content, path)
    except UserError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _map_storages(memory: mmap.mmap, keys: list[str], announced: dict[str, Tensor]) -> dict[str, Tensor]:
    """Map the arrays that follow the pickles, each 1-D and, where its alignment allows, a view of the mapped file."""
    storages, position = {}, memory.tell()
    for key in keys:
        dtype, count = announced[key].dtype, announced[key].numel()
        (written,) = struct.unpack_from("<q", memory, position)
        start, end = position + 8, position + 8 + count * dtype.itemsize
        if written != count or end > len(memory):
            raise pickle.UnpicklingError(f"storage {key} is cut short, or does not have the {count} elements announced")
        source = memory if start % dtype.itemsize == 0 else bytearray(memory[start:end])
        offset = start if source is memory else 0
        storages[key] = torch.frombuffer(source, dtype=dtype, count=count, offset=offset) if count else announced[key]
        position = end
    return storages


class _LegacyUnpickler(SafeUnpickler):
    """Unpickler of the file's next pickle. Storages that are not given become tensors without memory."""

    def __init__(self, path: Path, memory: mmap.mmap, storages: dict[str, Tensor] | None = None):
        super().__init__(memory, encoding="utf-8")
        self.path = path
        self.storages = dict(storages or {})

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a class or function, by name; see the parent."""
        match f"{module}.{name}":  # names of torch before 0.4; functions made anew, as in the parent
            case "torch._utils._rebuild_tensor":
                return lambda storage, offset, size, stride: storage.as_strided(size, stride, offset)
            case "torch.nn.parameter.Parameter":
                return lambda tensor, *rest: tensor
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage, as a 1-D tensor."""
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or view is not None:
            raise pickle.UnpicklingError(f"unknown storage {pid}")
        if key not in self.storages:
            self.storages[key] = torch.empty(count, dtype=dtype, device="meta" if count else "cpu")
        return self.storages[key]
