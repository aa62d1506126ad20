"""A checkpoint folder is whole, whenever the process is killed."""

import os
import shutil
import signal

import pytest
import torch

from ldm.checkpoints.io import read_metadata, read_tensors
from ldm.training.loop.checkpoint_folder import TRAINER, WEIGHTS, FolderIO, whole
from tests.refusals import refused


def checkpoint(step: int) -> dict:
    weights = {"a": torch.full((3,), float(step)), "b": torch.tensor(step, dtype=torch.bfloat16)}
    return {"weights": weights, "global_step": step, "state_dict": {"raw": torch.ones(2)}, "loops": {"x": [1, None]}}


def step_of(folder) -> int:
    """The step of a checkpoint, of which everything must be from the same."""
    found = FolderIO().load_checkpoint(folder)
    assert found["global_step"] == found["weights"]["a"][0] == int(read_metadata(folder / WEIGHTS)["step"])
    return found["global_step"]


def test_the_folder_holds_weights_for_anybody_and_plain_types(tmp_path):
    FolderIO().save_checkpoint(checkpoint(7), tmp_path / "last")
    assert sorted(os.listdir(tmp_path)) == ["last"] and sorted(os.listdir(tmp_path / "last")) == [TRAINER, WEIGHTS]
    tensors = read_tensors(tmp_path / "last" / WEIGHTS)
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {"a": torch.float32, "b": torch.float32}
    assert "weights" not in torch.load(tmp_path / "last" / TRAINER, weights_only=True)
    assert step_of(tmp_path / "last") == 7


def save_and_die(path, calls: int) -> bool:
    """Save step 2 in a process that is killed just before its n-th operation on files; whether it died."""
    child = os.fork()
    if child == 0:
        left = [calls]

        def deadly(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "open"):
            setattr(os, name, deadly(getattr(os, name)))
        FolderIO().save_checkpoint(checkpoint(2), path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("there", [False, True])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_one(tmp_path, there):
    path, found = tmp_path / "last", []
    for calls in range(100):
        shutil.rmtree(tmp_path)
        if there:
            FolderIO().save_checkpoint(checkpoint(1), path)
        died = save_and_die(path, calls)
        found.append(step_of(whole(path)) if whole(path).exists() else None)
        FolderIO().save_checkpoint(checkpoint(3), path)  # goes on from whatever is left
        assert step_of(path) == 3 and os.listdir(tmp_path) == ["last"]
        if not died:
            break
    assert not died and found[-1] == 2 and found == sorted(found, key=lambda step: step or 0)
    assert set(found) == {1 if there else None, 2} and len(found) > 8


def test_what_a_killed_process_left_half_written_is_not_taken(tmp_path):
    (tmp_path / ".last.new").mkdir()
    (tmp_path / ".last.new" / WEIGHTS).write_bytes(b"half")
    assert not whole(tmp_path / "last").exists()
    FolderIO().save_checkpoint(checkpoint(1), tmp_path / "last")
    assert os.listdir(tmp_path) == ["last"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize("large", ["weights", "state_dict"])
def test_a_full_disk_leaves_the_old_one(tmp_path, large):
    import resource

    FolderIO().save_checkpoint(checkpoint(1), tmp_path / "last")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1]))
    try:
        content = checkpoint(2)
        content[large]["big"] = torch.zeros(10**5)
        with refused("last", "too large"):
            FolderIO().save_checkpoint(content, tmp_path / "last")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["last"] and step_of(tmp_path / "last") == 1


@pytest.mark.parametrize("name", [WEIGHTS, TRAINER])
def test_a_broken_or_missing_file_is_named(tmp_path, name):
    FolderIO().save_checkpoint(checkpoint(1), tmp_path / "last")
    file = tmp_path / "last" / name
    file.write_bytes(file.read_bytes()[:-50])
    with refused(file):
        FolderIO().load_checkpoint(tmp_path / "last")
    file.unlink()
    with refused(file):
        FolderIO().load_checkpoint(tmp_path / "last")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    FolderIO().save_checkpoint(checkpoint(1), tmp_path / "last")

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"x": Hostile()}, tmp_path / "last" / TRAINER)
    with refused(TRAINER):
        FolderIO().load_checkpoint(tmp_path / "last")
    assert not (tmp_path / "executed").exists()
