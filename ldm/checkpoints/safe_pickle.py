"""Pickles read without executing anything.

A pickle is a program: Python's unpickler imports and calls whatever it names. Ours can call only what rebuilds a
tensor. Every other class or function, the training objects of the official files included, becomes an inert stand-in
that swallows its arguments.
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

# No weights need these. That nothing runs does not depend on this list: it lets a hostile file be named as such.
HOSTILE_MODULES = {"os", "posix", "nt", "subprocess", "pty", "shutil", "socket", "runpy", "importlib", "ctypes", "code"}
HOSTILE_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "breakpoint"}


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


def check_memo(content: bytes) -> None:
    """Refuse a pickle that numbers what it remembers beyond its own length: Python makes room for all up to there.

    Raises:
        UnpicklingError: it does.
        ValueError: it is no pickle.
    """
    for opcode, number, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > len(content):
            raise pickle.UnpicklingError(f"memo {number} in {len(content)} bytes")


class SafeUnpickler(pickle.Unpickler):
    """Runs a pickle of the file `path` with only ordered dicts, inert objects and that file's tensors in reach.

    Subclasses find the storages, in `persistent_load`.
    """

    path: Path

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


def state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of what a pickle held, by name: of its `state_dict`, if it has one.

    Raises:
        UserError: there are none.
    """
    if isinstance(content, dict) and isinstance(state := dict.get(content, "state_dict"), dict):
        content = state
    tensors = {name: tensor.detach() for name, tensor in _tensors_in(content, "", set())}
    if not tensors:
        raise UserError(f"checkpoint {path}: holds no state dict (a mapping of names to tensors)")
    return tensors


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


def unreadable(path: Path, error: Exception) -> UserError:
    """A pickle is a program of someone else's making: running it can fail in any way."""
    return UserError(f"checkpoint {path}: unreadable ({type(error).__name__}: {one_line(error)})")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
