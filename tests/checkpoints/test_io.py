import builtins
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ldm.checkpoints import io
from ldm.checkpoints.io import Inert, read_metadata, read_tensors, save_checkpoint, save_tensors
from ldm.utils.errors import UserError
from tests.checkpoints.official import write

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([-1.0, 2.0])}


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def rewrite_pickle(path, change, compression=zipfile.ZIP_STORED):
    """Write the zip file again with another data.pkl."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in entries.items():
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)


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
        "transposed": base.reshape(4, 6).T,
        "view": base[5:9],
        "same storage": base[5:9],
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "half": base.half(),
        "bf16": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "int": base.int(),
        "byte": base.byte(),
        "bool": base > 3,
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
    def anonymous_kib():
        return int(next(x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x).split()[1])

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    big = {"x": torch.ones(32 * 2**20 // 4)}
    torch.save(big, tmp_path / name) if name.endswith("pt") else save_file(big, tmp_path / name)
    del big
    before = anonymous_kib()
    tensors = read_tensors(tmp_path / name)
    assert tensors["x"].sum().item() == 32 * 2**20 // 4
    assert anonymous_kib() - before < 8 * 1024  # 32 MiB, had it been read into memory


class Detonator:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("beside", [{}, {"state_dict": TENSORS}], ids=["alone", "beside weights"])
@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.exec, shutil.rmtree])
def test_hostile_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch, function, beside):
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir()
    argument = str(victim) if function is shutil.rmtree else "rmdir victim"
    if function in (builtins.eval, builtins.exec):
        argument = "__import__('os').rmdir('victim')"
    torch.save({**beside, "x": Detonator(function, argument)}, tmp_path / "a.ckpt")
    assert "refused" in refusal(tmp_path / "a.ckpt")
    assert victim.exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)  # the trap is a real one
    assert not victim.exists()


def test_hostile_bare_pickle(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"{protocol}.ckpt"
        path.write_bytes(pickle.dumps(Detonator(os.mkdir, str(tmp_path / "ran")), protocol=protocol))
        refusal(path)
    assert not (tmp_path / "ran").exists()


fired = []


def test_a_function_that_nobody_listed_as_hostile_is_not_called_either(tmp_path):
    content = {"state_dict": TENSORS, "x": Detonator(_fire), "y": Detonator(fired.append, 1)}
    torch.save(content, tmp_path / "a.ckpt")
    same(read_tensors(tmp_path / "a.ckpt"), TENSORS)
    assert not fired
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert fired


def _fire():
    fired.append(1)


def test_a_pickle_cannot_change_what_it_can_reach(tmp_path):
    """BUILD sets attributes of whatever a global stands for: from a dict in its `__dict__`, from a pair one by one."""
    torch.save({"state_dict": TENSORS}, tmp_path / "a.ckpt")
    names = [b"collections\nOrderedDict", b"some.module\nThing"]
    names += [b"torch._utils\n" + name for name in (b"_rebuild_tensor_v2", b"_rebuild_parameter")]
    for name in names:
        state = b"}X\x09\x00\x00\x00as_pickleX\x01\x00\x00\x001s"
        for build in (state + b"b", b"(N" + state + b"tb"):
            attack = b"\x80\x02c" + name + b"\n" + build + b"."
            rewrite_pickle(tmp_path / "a.ckpt", lambda data, attack=attack: attack)
            refusal(tmp_path / "a.ckpt")
    within_reach = [
        Inert,
        OrderedDict,
        *(f for f in [*vars(io).values(), *vars(io._Unpickler).values()] if callable(f)),
    ]
    assert not any(hasattr(thing, "as_pickle") for thing in within_reach)
    torch.save({"state_dict": TENSORS}, tmp_path / "a.ckpt")
    same(read_tensors(tmp_path / "a.ckpt"), TENSORS)


class Module:
    """Known to no reader, and so read as a TorchScript module is."""


class Shadowed(dict):
    """Pickled as an OrderedDict whose attributes stand before its methods."""

    def __reduce__(self):
        return OrderedDict, (list(self.items()),), {"get": None, "items": None}


def test_a_mapping_whose_methods_the_pickle_replaces(tmp_path):
    torch.save(Shadowed(state_dict=Shadowed(TENSORS)), tmp_path / "a.ckpt")
    same(read_tensors(tmp_path / "a.ckpt"), TENSORS)


def test_objects_that_contain_themselves(tmp_path):
    module = Module()
    module.weight, module.child = TENSORS["a.weight"], Module()
    module.child.bias, module.child.parent, module.child.self = TENSORS["a.bias"], module, module.child
    torch.save(module, tmp_path / "a.ckpt")
    same(read_tensors(tmp_path / "a.ckpt"), {"weight": TENSORS["a.weight"], "child.bias": TENSORS["a.bias"]})


@pytest.mark.parametrize("depth, reason", [(100, "holds no state dict"), (5000, "unreadable")])
def test_objects_in_one_another(tmp_path, depth, reason):
    """Each object is both attributes of the next, so that 2 to the `depth` ways lead through."""
    thing = b"cM\nM\n)\x81"
    wrap = b"q\x00" + thing + b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub"
    torch.save(TENSORS, tmp_path / "a.ckpt")
    rewrite_pickle(tmp_path / "a.ckpt", lambda data: b"\x80\x02" + thing + wrap * depth + b".")
    assert reason in refusal(tmp_path / "a.ckpt")


def bomb(path, compression=zipfile.ZIP_DEFLATED, **entries):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"a/{name.replace('_', '.')}", data)


def test_small_files_do_not_unpack_to_large_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "MAX_PICKLE", 100_000)
    monkeypatch.setattr(io, "MAX_UNPACKED", (300_000, 4))
    bomb(tmp_path / "pickle.ckpt", data_pkl=b"N" * 100_001)
    bomb(tmp_path / "weights.ckpt", data_pkl=b"N.", zeros=bytes(300_000))
    bomb(tmp_path / "allowed.ckpt", data_pkl=b"N.", zeros=bytes(299_000), byteorder=b"little")
    bomb(tmp_path / "noise.ckpt", data_pkl=b"N.", noise=os.urandom(400_000))
    bomb(tmp_path / "lzma.ckpt", zipfile.ZIP_LZMA, data_pkl=b"N.")
    assert "would unpack" in refusal(tmp_path / "pickle.ckpt") and "would unpack" in refusal(tmp_path / "weights.ckpt")
    assert "no state dict" in refusal(tmp_path / "allowed.ckpt") and "no state dict" in refusal(tmp_path / "noise.ckpt")
    assert "stored or deflated" in refusal(tmp_path / "lzma.ckpt")


def test_an_entry_with_more_in_it_than_the_table_says(tmp_path):
    path, size = tmp_path / "a.ckpt", 64 * 2**20
    bomb(path, data_pkl=b"N." + bytes(size))
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size + 2), struct.pack("<I", 2)))
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_an_entry_asked_for_often_is_unpacked_once(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    rewrite_pickle(tmp_path / "a.pt", lambda data: data, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        unpickler = io._Unpickler(tmp_path / "a.pt", archive, None, "a/")
        first, second = (unpickler.unpack("a/data/0") for _ in range(2))
    assert first is second and len(first) == 24


def test_a_damaged_pickle_is_refused_or_harmless(tmp_path):
    path = write(tmp_path / "a.ckpt", TENSORS)
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("a/data.pkl").file_size
    refused = 0
    for k in range(0, size, 5):
        path.write_bytes(original)
        rewrite_pickle(path, lambda data, k=k: data[:k] + bytes([data[k] ^ 0x15]) + data[k + 1 :])
        try:
            read_tensors(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


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
        (b"<!DOCTYPE html><html>404 not found</html>", "neither"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"\x80\x02}q\x00.", "bare pickle"),
        (b"\x00" * 100, "neither"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, reason):
    (tmp_path / "model.ckpt").write_bytes(content)
    assert reason in refusal(tmp_path / "model.ckpt")


def test_files_that_are_no_checkpoints_either(tmp_path):
    refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "data.pkl" in refusal(tmp_path / "other.ckpt")
    for content in ([1, 2], {"epoch": 3}, {"state_dict": {}}, 7):
        torch.save(content, tmp_path / "empty.ckpt")
        assert "state dict" in refusal(tmp_path / "empty.ckpt")


def test_big_endian_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as new:
        for name, data in entries.items():
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert "big-endian" in refusal(tmp_path / "a.pt")


def test_save_tensors_round_trip(tmp_path):
    tensors = {"x": torch.randn(3, 4).half().T, "y": nn.Parameter(torch.ones(2)), "z": torch.arange(3)}
    save_tensors(tmp_path / "a.safetensors", tensors, {"step": "5"})
    same(read_tensors(tmp_path / "a.safetensors"), {name: tensor.detach() for name, tensor in tensors.items()})
    assert read_metadata(tmp_path / "a.safetensors")["step"] == "5"


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_writing_is_all_or_nothing(tmp_path, name, monkeypatch):
    save_checkpoint(tmp_path / name, TENSORS)
    before = (tmp_path / name).read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="No space left"):
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
        with pytest.raises(UserError, match=f"cannot write {folder / name}"):
            save_checkpoint(folder / name, TENSORS)
