"""Pickles read without executing anything.

A pickle is a program: Python's unpickler imports and calls whatever it names. The one here can only rebuild tensors.
Every other class or function, the training objects of the official files included, becomes an inert stand-in that
ignores its arguments.
"""

import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.utils.errors import UserError

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

# No weights need these. Nothing runs in any case: the list is there to report a hostile file as such.
HOSTILE_MODULES = {"os", "posix", "nt", "subprocess", "pty", "shutil", "socket", "runpy", "importlib", "ctypes", "code"}
HOSTILE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint"}


class Inert:
    """Stand-in for whatever a pickle names that is not a tensor. It takes anything and does nothing."""

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
        """Do nothing."""

    extend = add = append


def check_memo(content: bytes) -> None:
    """Refuse a pickle with a memo number beyond its own length: Python allocates all numbers up to there.

    Raises:
        UnpicklingError: it has one.
        ValueError: it is not a pickle.
    """
    for opcode, number, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > len(content):
            raise pickle.UnpicklingError(f"memo {number} in a pickle of {len(content)} bytes")


class SafeUnpickler(pickle.Unpickler):
    """Unpickler for the file `path` that can reach only ordered dicts, inert objects and that file's tensors.

    Subclasses provide the storages, in `persistent_load`.
    """

    path: Path

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a class or function, by name.

        Raises:
            UserError: it would run something.
        """
        if module.split(".")[0] in HOSTILE_MODULES or (
            module in ("builtins", "__builtin__") and name in HOSTILE_BUILTINS
        ):
            raise UserError(
                f"checkpoint {self.path}: refused, its pickle asks to run {module}.{name} (nothing was run)"
            )
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        match f"{module}.{name}":  # functions and classes made anew: a pickle's changes to them stay local
            case "collections.OrderedDict":
                return OrderedDict
            case "torch._utils._rebuild_tensor_v2":
                return lambda storage, offset, size, stride, *rest: storage.as_strided(size, stride, offset)
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
                return lambda tensor, *rest: tensor
        return type(name, (Inert,), {})


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle's content by name, those of its `state_dict` if it has one.

    Raises:
        UserError: it has no tensors.
    """
    if isinstance(content, dict) and isinstance(state := dict.get(content, "state_dict"), dict):
        content = state
    tensors = {name: tensor.detach() for name, tensor in _tensors_in(content, "", set())}
    if not tensors:
        raise UserError(f"checkpoint {path}: no state dict found, expected a mapping of names to tensors")
    return tensors


def _tensors_in(content: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors of a state dict, or of a TorchScript module: its attributes are parameters and children."""
    if id(content) in seen:  # a hostile object may contain itself
        return
    seen.add(id(content))
    script = isinstance(content, Inert)
    mapping = content.state if script else content if isinstance(content, dict) else {}
    for name, value in dict.items(mapping):  # not mapping.items, which a pickle can replace
        if isinstance(value, Tensor) and isinstance(name, str):
            yield prefix + name, value
        elif script and isinstance(value, Inert):
            yield from _tensors_in(value, f"{prefix}{name}.", seen)


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a pickle that failed to load: being someone else's program, it can fail in any way."""
    return UserError(f"checkpoint {path}: unreadable ({type(error).__name__}: {one_line(error)})")


def one_line(error: Exception) -> str:
    """Return an exception's message in one line, cut to 200 characters."""
    return " ".join(str(error).split())[:200]
