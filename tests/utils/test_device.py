import pytest
import torch

from ldm.utils.device import choose_device
from tests.refusals import refused


def test_auto_is_a_gpu_if_there_is_one():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("gpus, chosen", [(4, "cuda:3"), (2, "cuda:1"), (1, "cuda:0"), (0, "cpu")])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch, gpus, chosen):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device) or torch.ones(1))
    choose_device("auto", local_rank=3)
    choose_device("cuda:0", local_rank=3)
    assert asked == [chosen, "cuda:0"]


def test_auto_is_apples_gpu_where_there_is_no_other(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device) or torch.ones(1))
    choose_device()
    assert asked == ["mps"]


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named_in_one_line(name):
    with refused(name):
        choose_device(name)
