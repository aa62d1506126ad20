import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ldm.checkpoints.io import SAFETENSORS, read_metadata, read_tensors, save_checkpoint, save_tensors
from ldm.utils.memory import anonymous
from tests.checkpoints.files import TENSORS, every_kind, refusal, rewrite_pickle, same
from tests.checkpoints.official import write
from tests.refusals import assert_mentions, refused


@pytest.mark.parametrize("name", ["file.ckpt", "file.safetensors"])
def test_reads_files_of_both_formats(tmp_path, name):
    found = read_tensors(write(tmp_path / name, TENSORS))
    same(dict(sorted(found.items())), dict(sorted(TENSORS.items())))


@pytest.mark.parametrize("real, claimed", [("file.ckpt", "x.safetensors"), ("file.safetensors", "x.ckpt")])
def test_content_counts_and_not_the_name(tmp_path, real, claimed):
    path = write(tmp_path / real, TENSORS).rename(tmp_path / claimed)
    assert torch.equal(read_tensors(path)["a.bias"], TENSORS["a.bias"])


def test_training_objects_of_unknown_classes_are_no_obstacle(tmp_path):
    path = write(tmp_path / "file.ckpt", TENSORS)
    with pytest.raises(ModuleNotFoundError):  # the file is as awkward as the real ones
        torch.load(path, weights_only=False)
    same(read_tensors(path), TENSORS)


def test_every_kind_of_tensor(tmp_path):
    base = torch.arange(24.0)
    tensors = {
        **every_kind(base),
        "same storage": base[5:9],
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "int": base.int(),
    }
    torch.save({**tensors, "parameter": nn.Parameter(base)}, tmp_path / "a.pt")
    same(read_tensors(tmp_path / "a.pt"), {**tensors, "parameter": base})


@pytest.mark.parametrize(
    "content", [TENSORS, OrderedDict(TENSORS), {"state_dict": nn.Linear(3, 2).state_dict()}, {**TENSORS, "epoch": 3}]
)
def test_state_dict_bare_or_inside(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    expected = content.get("state_dict", content)
    same(read_tensors(tmp_path / "a.pt"), {name: t for name, t in expected.items() if isinstance(t, torch.Tensor)})


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_archive(tmp_path):  # OpenAI publishes CLIP so
    network = nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.LayerNorm(2), nn.Linear(2, 1)))
    torch.jit.trace(network, torch.zeros(1, 3)).save(str(tmp_path / "script.pt"))
    same(read_tensors(tmp_path / "script.pt"), network.state_dict())


def test_zip_that_was_packed_again(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    rewrite_pickle(tmp_path / "a.pt", lambda data: data, zipfile.ZIP_DEFLATED)
    same(read_tensors(tmp_path / "a.pt"), TENSORS)


@pytest.mark.parametrize("name", ["big.pt", "big.safetensors"])
def test_nothing_is_read_before_it_is_used(tmp_path, name):
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    big = {"x": torch.ones(32 * 2**20 // 4)}
    torch.save(big, tmp_path / name) if name.endswith("pt") else save_file(big, tmp_path / name)
    del big
    before = anonymous()
    tensors = read_tensors(tmp_path / name)
    assert tensors["x"].sum().item() == 32 * 2**20 // 4
    assert anonymous() - before < 8 * 2**20  # 32 MiB, had it been read into memory


@pytest.mark.parametrize("name", ["file.ckpt", "file.safetensors"])
@pytest.mark.parametrize("keep", [5, 40, 0.3, 0.9, -1])
def test_truncated_files(tmp_path, name, keep):
    path = write(tmp_path / name, TENSORS)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refusal(path)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404 not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x00" * 100, ()),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, reason):
    (tmp_path / "model.ckpt").write_bytes(content)
    assert_mentions(refusal(tmp_path / "model.ckpt"), reason)


def test_files_that_are_no_checkpoints_either(tmp_path):
    refusal(tmp_path)
    refusal(tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_mentions(refusal(tmp_path / "other.ckpt"), "data.pkl")
    for content in ([1, 2], {"epoch": 3}, {"state_dict": {}}, 7):
        torch.save(content, tmp_path / "empty.ckpt")
        refusal(tmp_path / "empty.ckpt")


def test_big_endian_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as new:
        for name, data in entries.items():
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert_mentions(refusal(tmp_path / "a.pt"), "big-endian")


def test_save_tensors_round_trip(tmp_path):
    tensors = {"x": torch.randn(3, 4).half().T, "y": nn.Parameter(torch.ones(2)), "z": torch.arange(3)}
    save_tensors(tmp_path / "a.safetensors", tensors, {"step": "5"})
    same(read_tensors(tmp_path / "a.safetensors"), {name: tensor.detach() for name, tensor in tensors.items()})
    assert read_metadata(tmp_path / "a.safetensors")["step"] == "5"


def test_save_tensors_writes_the_bytes_that_the_library_writes(tmp_path):
    tensors = {str(dtype): torch.arange(5).to(dtype) for dtype in SAFETENSORS} | {
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
        "ü": torch.randn(2, 3),
    }
    save_file(tensors, tmp_path / "theirs.safetensors", {"format": "pt"})
    save_tensors(tmp_path / "ours.safetensors", tensors)
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_save_tensors_of_any_layout_in_another_dtype(tmp_path):
    base = torch.arange(24.0)
    tensors = {
        "transposed": base.reshape(4, 6).T,
        "view": base[5:9],
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "whole": torch.arange(3),
    }
    save_tensors(tmp_path / "a.safetensors", tensors, dtype=torch.float16)
    expected = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    assert load_file(tmp_path / "a.safetensors").keys() == expected.keys()
    same(dict(sorted(load_file(tmp_path / "a.safetensors").items())), dict(sorted(expected.items())))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_save_tensors_needs_memory_for_one_tensor_only(tmp_path):
    """24 tensors of 4 MiB, cast to other 2 MiB each: a fresh process says what its peak was before and after."""
    script = f"""
import torch
from ldm.checkpoints.io import save_tensors
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
tensors = {{str(k): torch.full((2**20,), float(k)) for k in range(24)}}
save_tensors({str(tmp_path / "small")!r}, {{"0": tensors["0"]}}, dtype=torch.float16)
before = peak()
save_tensors({str(tmp_path / "large")!r}, tensors, dtype=torch.float16)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 1024  # KiB; all at once are 48 MiB


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_writing_is_all_or_nothing(tmp_path, name, monkeypatch):
    save_checkpoint(tmp_path / name, TENSORS)
    before = (tmp_path / name).read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with refused(tmp_path / name, "No space left"):
        save_checkpoint(tmp_path / name, {"x": torch.ones(1)})
    assert (tmp_path / name).read_bytes() == before and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_files_have_the_usual_permissions(tmp_path, name):
    save_checkpoint(tmp_path / name, TENSORS)
    (tmp_path / "usual").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_unwritable_places(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "missing"):
        with refused(folder / name):
            save_checkpoint(folder / name, TENSORS)
