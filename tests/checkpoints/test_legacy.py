import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import nn

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.legacy import MAGIC
from tests.checkpoints.files import TENSORS, every_kind, refusal, same
from tests.refusals import assert_mentions


def save_legacy(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_every_kind_of_tensor(tmp_path):
    base = torch.arange(24.0)
    tensors = every_kind(base)
    path = save_legacy(tmp_path / "a.pth", {**tensors, "parameter": nn.Parameter(base), "epoch": 3})
    same(read_tensors(path), {**tensors, "parameter": base})


def test_wherever_the_arrays_begin(tmp_path):
    """Their place in the file depends on the names' lengths: aligned ones are mapped, the others copied."""
    for length in range(1, 9):
        tensors = {"n" * length: torch.arange(5.0), "m": torch.arange(3.0).double()}
        same(read_tensors(save_legacy(tmp_path / "a.pth", {"state_dict": tensors})), tensors)


class Old(pickle.Pickler):
    """Writes parameters as torch 0.1 did (torchvision's VGG16 is of 2017): a class called with an old-style tensor."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = {}

    def persistent_id(self, thing):
        if isinstance(thing, torch.UntypedStorage):
            key = str(thing.data_ptr())
            self.storages[key] = thing
            return "storage", torch.FloatStorage, key, "cpu", len(thing) // 4, None

    def reducer_override(self, thing):
        if type(thing) is nn.Parameter:
            return nn.Parameter, (thing.data,), (True, False, OrderedDict())
        if type(thing) is torch.Tensor:
            arguments = thing.untyped_storage(), thing.storage_offset(), tuple(thing.shape), thing.stride()
            return torch._utils._rebuild_tensor, arguments
        return NotImplemented


def test_parameters_of_the_first_versions_of_torch(tmp_path):
    layer = nn.Linear(3, 2)
    content = OrderedDict(weight=layer.weight, bias=layer.bias, mean=torch.ones(2))
    path = tmp_path / "a.pth"
    with open(path, "wb") as file:
        file.write(MAGIC)
        pickle.dump(1001, file, 2)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, file, 2)
        pickler = Old(file)
        pickler.dump(content)
        keys = sorted(pickler.storages)
        pickle.dump(keys, file, 2)
        for key in keys:
            data = bytes(pickler.storages[key])
            file.write((len(data) // 4).to_bytes(8, "little") + data)
    expected = torch.load(path, weights_only=True)  # torch's own reader knows the format
    assert isinstance(expected["weight"], nn.Parameter)
    found = read_tensors(path)
    same(found, {name: tensor.detach() for name, tensor in expected.items()})
    assert torch.equal(found["weight"], layer.weight) and not found["weight"].requires_grad


def test_a_file_that_is_out_in_the_world():
    """The linear layers of LPIPS, saved on a GPU in 2018."""
    path = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    same(read_tensors(path), torch.load(path, weights_only=True, map_location="cpu"))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.98])
def test_cut_short(tmp_path, keep):
    path = save_legacy(tmp_path / "a.pth", TENSORS | {"c": torch.ones(100)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refusal(path)


def test_no_state_dict(tmp_path):
    refusal(save_legacy(tmp_path / "a.pth", {"epoch": 3}))


class Attack:
    def __reduce__(self):
        import os

        return os.system, ("touch fired",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_mentions(refusal(save_legacy(tmp_path / "a.pth", {**TENSORS, "x": Attack()})), f"{os.name}.system")
    for part in (1, 2):  # nor in the pickles before the content; the first one is what such a file is known by
        pickles = [MAGIC, pickle.dumps(1001, 2), pickle.dumps({"little_endian": True}, 2)]
        pickles[part] = pickle.dumps(Attack(), 2)
        (tmp_path / "b.pth").write_bytes(b"".join(pickles))
        assert_mentions(refusal(tmp_path / "b.pth"), f"{os.name}.system")
    assert not (tmp_path / "fired").exists()
    pickle.loads(pickle.dumps(Attack(), 2))
    assert (tmp_path / "fired").exists()


def test_other_platforms_and_kinds_are_refused(tmp_path):
    path = save_legacy(tmp_path / "a.pth", TENSORS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    assert path.read_bytes() != data
    assert_mentions(refusal(path), "big-endian")
    path.write_bytes(data.replace(b"storage", b"storagf"))
    assert_mentions(refusal(path), "storagf")
