"""Checkpoints to resume from, as folders: weights in a common format, and the state of the trainer next to them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from ldm.checkpoints.io import read_tensors, save_tensors
from ldm.utils.errors import UserError, reason

WEIGHTS, TRAINER = "weights.safetensors", "trainer.ckpt"


class FolderIO(CheckpointIO):
    """Lightning's checkpoints as folders, written atomically.

    `weights.safetensors`, readable by `ldm.load`, is the entry "weights" of Lightning's checkpoint dict in float32.
    `trainer.ckpt` is the rest, plain types that `torch.load(weights_only=True)` reads. Both are streamed to disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with replacing_folder(Path(path)) as folder:
            metadata = {"step": str(checkpoint["global_step"])}
            save_tensors(folder / WEIGHTS, checkpoint.pop("weights"), metadata, torch.float32)
            with open(folder / TRAINER, "wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # how torch reports a full disk
                    raise OSError(str(error.__context__ or error)) from error
                file.flush()
                os.fsync(file.fileno())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the dict that `save_checkpoint` was given. "weights" are views of the mapped file."""
        return read_trainer(Path(path)) | {"weights": read_tensors(Path(path) / WEIGHTS)}

    def remove_checkpoint(self, path: str | Path) -> None:
        shutil.rmtree(path)


def read_trainer(folder: Path) -> dict[str, Any]:
    """Read the trainer's state from a checkpoint. Nothing in the file is executed.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        return torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {folder / TRAINER}: {reason(error)}") from error
    except Exception as error:  # torch's errors for a broken file share no base
        raise UserError(f"checkpoint {folder / TRAINER}: damaged or truncated ({type(error).__name__})") from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path` to write to, which replaces `path` only if the block succeeds.

    A folder cannot replace another in one step, so there are two renames, X -> .X.old and .X.new -> X. The old one is
    moved only when the new one is complete. So whenever the process is killed, one of them is complete, and `whole`
    finds it: X if it exists, otherwise .X.new if .X.old exists.

    Raises:
        UserError: the folder cannot be written.
    """
    new, old = _beside(path)
    try:
        if (found := whole(path)) != path:  # a kill between the two renames
            os.rename(found, path)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        _sync(new)
        if path.exists():
            os.rename(path, old)
        os.rename(new, path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        if path.exists() or not old.exists():  # otherwise the new one is the complete one
            shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written ({reason(error)})") from error
        raise


def whole(path: Path) -> Path:
    """Return the last complete folder that `replacing_folder` wrote for `path`, or `path` itself if none exists."""
    new, old = _beside(path)
    return new if not path.exists() and old.exists() and new.exists() else path


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _sync(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system allows it (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
