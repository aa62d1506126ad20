"""Files made to run something, to exhaust the memory or to confuse the reader are refused in one line."""

import builtins
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch

from ldm.checkpoints import safe_pickle, torch_zip
from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.safe_pickle import Inert, SafeUnpickler
from ldm.utils.errors import UserError
from tests.checkpoints.files import TENSORS, refusal, rewrite_pickle, same
from tests.checkpoints.official import write
from tests.refusals import assert_line, assert_mentions


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
    assert_mentions(refusal(tmp_path / "a.ckpt"), function.__name__)
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
        *(f for part in (safe_pickle, torch_zip, SafeUnpickler) for f in vars(part).values() if callable(f)),
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


@pytest.mark.parametrize("depth", [100, 5000])
def test_objects_in_one_another(tmp_path, depth):
    """Each object is both attributes of the next, so that 2 to the `depth` ways lead through."""
    thing = b"cM\nM\n)\x81"
    wrap = b"q\x00" + thing + b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub"
    torch.save(TENSORS, tmp_path / "a.ckpt")
    rewrite_pickle(tmp_path / "a.ckpt", lambda data: b"\x80\x02" + thing + wrap * depth + b".")
    refusal(tmp_path / "a.ckpt")


def bomb(path, compression=zipfile.ZIP_DEFLATED, **entries):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(f"a/{name.replace('_', '.')}", data)


def test_small_files_do_not_unpack_to_large_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_zip, "MAX_PICKLE", 100_000)
    monkeypatch.setattr(torch_zip, "MAX_UNPACKED", (300_000, 4))
    bomb(tmp_path / "pickle.ckpt", data_pkl=b"N" * 100_001)
    bomb(tmp_path / "weights.ckpt", data_pkl=b"N.", zeros=bytes(300_000))
    bomb(tmp_path / "allowed.ckpt", data_pkl=b"N.", zeros=bytes(299_000), byteorder=b"little")
    bomb(tmp_path / "noise.ckpt", data_pkl=b"N.", noise=os.urandom(400_000))
    bomb(tmp_path / "lzma.ckpt", zipfile.ZIP_LZMA, data_pkl=b"N.")
    assert_mentions(refusal(tmp_path / "pickle.ckpt"), "100.0 kB")
    assert_mentions(refusal(tmp_path / "weights.ckpt"), "300.0 kB")
    for name in ("allowed.ckpt", "noise.ckpt"):
        assert "kB" not in refusal(tmp_path / name)  # not for its size
    assert_mentions(refusal(tmp_path / "lzma.ckpt"), zipfile.ZIP_LZMA)


def test_a_memo_beyond_the_pickle(tmp_path):
    """Python's unpickler makes room for all 2^30 entries up to it, 8 GB."""
    bomb(tmp_path / "memo.ckpt", data_pkl=b"\x80\x02]r\xff\xff\xff\x3f.")
    refusal(tmp_path / "memo.ckpt")


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
        unpickler = torch_zip._ZipUnpickler(tmp_path / "a.pt", archive, None, "a/")
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
            assert_line(str(error), path)
    assert refused > 20
