"""What the tests of reading files share."""

import zipfile

import torch

from ldm.checkpoints.io import read_tensors
from tests.refusals import assert_mentions, refusal_of

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([-1.0, 2.0])}


def same(found, expected):
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def refusal(path):
    """The one line with which a file is refused; it names the file."""
    message = refusal_of(read_tensors, path)
    assert_mentions(message, path)
    return message


def rewrite_pickle(path, change, compression=zipfile.ZIP_STORED):
    """Write the zip file again with another data.pkl."""
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, data in entries.items():
            new.writestr(name, change(data) if name.endswith("data.pkl") else data)


def every_kind(base: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of all the layouts and types that any torch file may hold, made of 24 numbers."""
    return {
        "transposed": base.reshape(4, 6).T,
        "view": base[5:9],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "half": base.half(),
        "bf16": base.bfloat16(),
        "double": base.double(),
        "long": base.long(),
        "byte": base.byte(),
        "bool": base > 3,
    }
