"""A checkpoint to go on from, as a folder: weights as anybody reads them, and the state of the trainer beside them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from ldm.checkpoints.io import read_tensors, save_tensors
from ldm.utils.errors import UserError

WEIGHTS, TRAINER = "weights.safetensors", "trainer.ckpt"


class FolderIO(CheckpointIO):
    """Lightning's checkpoints as folders, each whole or not there at all.

    `weights.safetensors` is what `ldm.load` reads, in float32: the entry "weights" of the dict that Lightning collects.
    `trainer.ckpt` is the rest, plain types that `torch.load(weights_only=True)` reads. Both are streamed to the disk.
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
        """What `save_checkpoint` was given. "weights" are views of the mapped file."""
        return read_trainer(Path(path)) | {"weights": read_tensors(Path(path) / WEIGHTS)}

    def remove_checkpoint(self, path: str | Path) -> None:
        shutil.rmtree(path)


def read_trainer(folder: Path) -> dict[str, Any]:
    """The state of the trainer in a checkpoint. Nothing in the file is executed.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        return torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"checkpoint {folder / TRAINER}: {error.strerror}") from error
    except Exception as error:  # what torch raises of a broken file shares no base
        raise UserError(f"checkpoint {folder / TRAINER}: broken or cut short ({type(error).__name__})") from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` to write to; it takes `path`'s place only if the block ends well.

    A folder cannot be put in another's place in one step, so there are two, X -> .X.old and .X.new -> X. The old one is
    moved only when the new one is complete. Hence, whenever the process is killed, one of them is whole, and `whole`
    tells which: X if it is there, otherwise .X.new if .X.old is there.

    Raises:
        UserError: it cannot be written.
    """
    new, old = _beside(path)
    try:
        if (found := whole(path)) != path:  # a kill between the two steps
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
        if path.exists() or not old.exists():  # else the new one is the good one
            shutil.rmtree(new, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or ' '.join(str(error).split())}") from error
        raise


def whole(path: Path) -> Path:
    """Where the last complete folder that `replacing_folder` wrote for `path` lies; `path` itself if there is none."""
    new, old = _beside(path)
    return new if not path.exists() and old.exists() and new.exists() else path


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")


def _sync(folder: Path) -> None:
    """Put the names in a folder on the disk; a system that cannot do so (Windows) does it by itself."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
