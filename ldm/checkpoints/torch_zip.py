"""Torch files since torch 1.6: a zip of raw arrays, stored as they are, and one pickle."""

import io
import mmap
import pickle
import struct
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoints.safe_pickle import SafeUnpickler, check_memo, one_line, state_dict, unreadable
from ldm.utils.errors import UserError
from ldm.utils.sizes import size

# A small file must not unpack to much memory. The official files' pickles are below 2 MiB, and deflated weights keep
# nine tenths of their size, unless they are all zeros.
MAX_PICKLE = 64 * 2**20
MAX_UNPACKED = 64 * 2**20, 4  # that many bytes, or that many times the size of the file


def read_torch_zip(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file that torch wrote since version 1.6; the tensors are views of the mapped file.

    Raises:
        UserError: the file is broken, cut short or not a state dict, or it tries to run something.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
            if not pickles:
                raise UserError(f"checkpoint {path}: a zip file, but not one that torch wrote (data.pkl is missing)")
            _refuse_bombs(path, archive.infolist())
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            content = _ZipUnpickler(path, archive, memory, pickles[0].removesuffix("data.pkl")).load()
        return state_dict(content, path)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f"checkpoint {path}: broken or cut short ({one_line(error)})") from error
    except Exception as error:
        raise unreadable(path, error) from error


def _refuse_bombs(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in entries)
    largest = max(entry.file_size for entry in entries if entry.filename.endswith("data.pkl"))
    floor, factor = MAX_UNPACKED
    if largest > MAX_PICKLE or total > max(floor, factor * path.stat().st_size):
        raise UserError(f"checkpoint {path}: refused, it would unpack to {size(total)} (pickle {size(largest)})")
    if unknown := {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UserError(f"checkpoint {path}: zip compression {min(unknown)}, expected stored or deflated entries")


class _ZipUnpickler(SafeUnpickler):
    def __init__(self, path: Path, archive: zipfile.ZipFile, memory: mmap.mmap, folder: str):
        pickled = _unpack(archive, folder + "data.pkl")
        check_memo(pickled)
        super().__init__(io.BytesIO(pickled), encoding="utf-8")
        self.path = path
        self.archive = archive
        self.memory = memory
        self.folder = folder
        self.unpack = cache(partial(_unpack, archive))  # each entry once, even if the pickle names it often
        if folder + "byteorder" in archive.namelist() and self.unpack(folder + "byteorder") != b"little":
            raise UserError(f"checkpoint {path}: written on a big-endian machine, which is not supported")

    def persistent_load(self, pid: Any) -> Tensor:
        """Return a storage, as a 1-D tensor over the mapped file."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown storage {pid}")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        entry = self.archive.getinfo(f"{self.folder}data/{key}")
        size = count * dtype.itemsize
        if entry.file_size != size:
            raise pickle.UnpicklingError(f"storage {key} has {entry.file_size} bytes, expected {size}")
        # The array follows the entry's local header of 30 bytes, whose last 4 are the lengths of its name and padding.
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", self.memory, entry.header_offset + 26))
        if entry.compress_type == zipfile.ZIP_STORED and start % dtype.itemsize == 0:
            return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=start)
        return torch.frombuffer(self.unpack(entry.filename), dtype=dtype)  # the file was zipped again


def _unpack(archive: zipfile.ZipFile, name: str) -> bytearray:
    """Unpack an entry, up to the size in the archive's table; `archive.read` would unpack more."""
    with archive.open(name) as entry:
        return bytearray(entry.read(archive.getinfo(name).file_size))
