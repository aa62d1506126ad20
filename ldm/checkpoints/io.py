"""Tensors in and out of files: torch's zip format and safetensors, read lazily and without executing anything.

A `.ckpt` is a zip of raw arrays and one pickle, and a pickle is a program: Python's unpickler imports and calls
whatever it names. Ours can call only what rebuilds a tensor. Every other class or function, the training objects of the
official files included, becomes an inert stand-in that swallows its arguments.
"""

import io
import json
import mmap
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldm.utils.errors import UserError
from ldm.utils.files import replacing

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# safetensors' names, in the order in which its own writer sorts the tensors of a file
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

# No weights need these. That nothing runs does not depend on this list: it lets a hostile file be named as such.
HOSTILE_MODULES = {"os", "posix", "nt", "subprocess", "pty", "shutil", "socket", "runpy", "importlib", "ctypes", "code"}
HOSTILE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint"}

# A small file must not unpack to much memory. The pickles of the official files have less than 2 MiB, and deflated
# weights, unless they are all zeros, nine tenths of their size.
MAX_PICKLE = 64 * 2**20
MAX_UNPACKED = 64 * 2**20, 4  # that many bytes, or that many times the size of the file


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, told by its content: torch zip (`.ckpt`, `.pt`, `.bin`, TorchScript) or safetensors.

    The tensors are views of the mapped file: nothing is read before it is used, and nothing is written back.

    Raises:
        UserError: there is no such file, or it is no complete checkpoint, or it tries to run something.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UserError(f"checkpoint {path}: {error.strerror}") from error
    if size == 0:
        raise UserError(f"checkpoint {path}: the file is empty (an interrupted download?)")
    if head.startswith(b"PK\x03\x04"):
        return _read_torch_zip(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"checkpoint {path}: a Git LFS pointer, not the weights (run `git lfs pull`)")
    if head.startswith(b"\x80"):
        raise UserError(
            f"checkpoint {path}: a bare pickle, which is not opened; if it is a torch file from before torch 1.6, "
            "convert it: torch.save(torch.load(OLD, weights_only=True), NEW)"
        )
    if head.lstrip().startswith(b"<"):
        raise UserError(f"checkpoint {path}: a web page, not the weights (was a log-in or an error page downloaded?)")
    raise UserError(f"checkpoint {path}: neither a torch zip file nor safetensors")


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text that `save_tensors` wrote beside the tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"checkpoint {path}: {_line(error)}") from error


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file, one tensor after the other: there is never a second copy of all of them in memory.

    The file appears under its name only when it is complete and on the disk. (safetensors' own `save_file` wants all
    of them at once on the CPU, contiguous and in the file's dtype; older versions copy even those.)

    Args:
        tensors: on any device, of any layout; tensors that share memory are written in full each.
        dtype: of the floating-point tensors in the file; by default their own.

    Raises:
        UserError: the file cannot be written.
    """
    dtypes = {name: dtype if dtype and t.is_floating_point() else t.dtype for name, t in tensors.items()}
    rank = {kind: k for k, kind in enumerate(SAFETENSORS)}
    names = sorted(tensors, key=lambda name: (rank[dtypes[name]], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].numel() * dtypes[name].itemsize
        kind, shape = SAFETENSORS[dtypes[name]], list(tensors[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = tensors[name].detach().to("cpu", dtypes[name]).contiguous()
            file.write(tensor.reshape(-1).view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `{"state_dict": tensors}` as other code bases' `torch.load` expects it, or safetensors if the name ends so.

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
        raise UserError(f"checkpoint {path}: broken safetensors, or cut short ({_line(error)})") from error


def _read_torch_zip(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if not pickles:
                raise UserError(f"checkpoint {path}: a zip file, but not one that torch wrote (no data.pkl in it)")
            _refuse_bombs(path, archive.infolist())
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            content = _Unpickler(path, archive, memory, pickles[0].removesuffix("data.pkl")).load()
        if isinstance(content, dict) and isinstance(state := dict.get(content, "state_dict"), dict):
            content = state
        tensors = dict(_tensors_in(content, "", set()))
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"checkpoint {path}: broken or cut short ({_line(error)})") from error
    except Exception as error:  # a pickle is a program of someone else's making: it can fail in any way
        raise UserError(f"checkpoint {path}: unreadable ({type(error).__name__}: {_line(error)})") from error

    if not tensors:
        raise UserError(f"checkpoint {path}: holds no state dict (a mapping of names to tensors)")
    return tensors


def _refuse_bombs(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    size = sum(entry.file_size for entry in entries)
    largest = max(entry.file_size for entry in entries if entry.filename.endswith("data.pkl"))
    floor, factor = MAX_UNPACKED
    if largest > MAX_PICKLE or size > max(floor, factor * path.stat().st_size):
        raise UserError(f"checkpoint {path}: refused, it would unpack to {size >> 20} MiB (pickle {largest >> 20} MiB)")
    if unknown := {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UserError(f"checkpoint {path}: zip compression {min(unknown)}, expected entries stored or deflated")


def _tensors_in(content: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Named tensors of a state dict, or of a TorchScript module, whose attributes hold its parameters and children."""
    if id(content) in seen:  # an object may be made to contain itself
        return
    seen.add(id(content))
    script = isinstance(content, Inert)
    mapping = content.state if script else content if isinstance(content, dict) else {}
    for name, value in dict.items(mapping):  # not mapping.items, which a pickle can replace
        if isinstance(value, Tensor) and isinstance(name, str):
            yield prefix + name, value
        elif script and isinstance(value, Inert):
            yield from _tensors_in(value, f"{prefix}{name}.", seen)


class Inert:
    """Stands in for whatever a pickle names that is no tensor. It takes anything and does nothing."""

    state: Mapping[str, Any] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return Inert()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    extend = add = append


class _Unpickler(pickle.Unpickler):
    """Runs the pickle of a torch zip file, with only ordered dicts, inert objects and that file's tensors in reach."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, memory: mmap.mmap, folder: str):
        super().__init__(io.BytesIO(_unpack(archive, folder + "data.pkl")), encoding="utf-8")
        self.path = path
        self.archive = archive
        self.memory = memory
        self.folder = folder
        self.unpack = cache(partial(_unpack, archive))  # each entry once, however often the pickle asks for it
        if folder + "byteorder" in archive.namelist() and self.unpack(folder + "byteorder") != b"little":
            raise UserError(f"checkpoint {path}: written on a big-endian machine, which is not supported")

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in HOSTILE_MODULES or (
            module in ("builtins", "__builtin__") and name in HOSTILE_BUILTINS
        ):
            raise UserError(f"checkpoint {self.path}: refused, it asks for {module}.{name} to be run (nothing was)")
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        match f"{module}.{name}":  # functions and classes made anew: what a pickle does to them stays with it
            case "collections.OrderedDict":
                return OrderedDict
            case "torch._utils._rebuild_tensor_v2":
                return lambda storage, offset, size, stride, *rest: storage.as_strided(size, stride, offset)
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
                return lambda tensor, *rest: tensor
        return type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a 1-D tensor over the mapped file."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {pid}")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        entry = self.archive.getinfo(f"{self.folder}data/{key}")
        size = count * dtype.itemsize
        if entry.file_size != size:
            raise pickle.UnpicklingError(f"storage {key} has {entry.file_size} bytes, expected {size}")
        # The array follows the entry's local header: 30 bytes, the last 4 of them the lengths of its name and padding.
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", self.memory, entry.header_offset + 26))
        if entry.compress_type == zipfile.ZIP_STORED and start % dtype.itemsize == 0:
            return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=start)
        return torch.frombuffer(self.unpack(entry.filename), dtype=dtype)  # zipped again by someone else


def _unpack(archive: zipfile.ZipFile, name: str) -> bytearray:
    """An entry up to the size that the archive's table gives; `archive.read` would unpack what is beyond it too."""
    with archive.open(name) as entry:
        return bytearray(entry.read(archive.getinfo(name).file_size))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
