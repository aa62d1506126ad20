import pytest
import torch

from ldm.checkpoints import open as room
from ldm.checkpoints.open import load, precision_of
from ldm.editors.exemplar import ExemplarEditor
from ldm.utils.errors import UserError
from tests.refusals import refused
from tests.tiny import write_model
from tests.utils.pictures import mask, photo

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    "asked, large, fast, chosen",
    [
        ("auto", True, True, "bf16"),
        ("auto", True, False, "full"),
        ("auto", False, True, "full"),
        ("full", True, True, "full"),
        ("bf16", False, False, "bf16"),
    ],
)
def test_auto_is_bf16_for_a_large_model_on_hardware_that_has_it(files, monkeypatch, asked, large, fast, chosen):
    monkeypatch.setattr(room, "BIG", 1000 if large else 10**9)
    monkeypatch.setattr(room, "has_fast_bf16", lambda device: fast)
    model = load(*files, CPU, asked)
    precision = precision_of(model)
    assert precision == chosen
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16 if chosen == "bf16" else torch.float32}


def test_another_dtype_is_called_by_its_name(files):
    assert precision_of(load(*files, CPU, torch.float16)) == "float16"


def test_an_edit_in_bf16_is_nearly_that_in_fp32(files):
    edits = []
    for precision in ("full", "bf16"):
        editor = ExemplarEditor(load(*files, CPU, precision), steps=2)
        (picture,) = editor(photo(), mask(), photo(seed=7)).images
        edits.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float())
    assert 0 < (edits[0] - edits[1]).abs().mean() < 3


@pytest.mark.parametrize("precision, allowed", [("full", False), ("bf16", True)])
def test_full_precision_has_no_tf32(files, monkeypatch, precision, allowed):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load(*files, CPU, precision)
    assert torch.backends.cudnn.allow_tf32 == allowed
    assert not torch.backends.cuda.matmul.allow_tf32  # torch's default


def test_a_config_without_a_model(tmp_path):
    (tmp_path / "a.yaml").write_text("data: 1")
    with refused(tmp_path / "a.yaml", "model"):
        load(tmp_path / "a.yaml", None, CPU)


def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(files, monkeypatch):
    monkeypatch.setattr(room, "load_into", lambda *_: pytest.fail("loaded"))

    def refuse(model):
        raise UserError(f"{model.unet.in_channels} channels")

    with refused("9 channels"):
        load(*files, CPU, check=refuse)
