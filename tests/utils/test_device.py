import pytest
import torch

from ldm.utils.device import choose_device
from ldm.utils.errors import UserError


def test_auto_is_a_gpu_if_there_is_one():
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named_in_one_line(name):
    with pytest.raises(UserError, match=rf"^device '{name}': .*"):
        choose_device(name)
