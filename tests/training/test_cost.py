"""The cost of a training step, counted without a GPU: against arithmetic, published figures and real tensors."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from ldm.config import build, load_config
from ldm.models.attention import attend
from ldm.training.base import Optimisation
from ldm.training.contrastive import ContrastiveTraining
from ldm.training.cost import FORMULAS, Flops, LiveBytes, SavedBytes, empty_loss, step_cost
from ldm.training.exemplar import ExemplarTraining
from ldm.training.latent_diffusion import LatentDiffusionTraining
from tests.refusals import refused
from tests.tiny import CONFIG

OPTIMISATION = Optimisation(1e-4, 0.01, 1, 0.0, 0)


def tiny_training(checkpointing: bool = False) -> ExemplarTraining:
    return ExemplarTraining(build(tiny_config(use_checkpoint=checkpointing)), OPTIMISATION, 0.2)


def tiny_config(conditioner: dict | None = CONFIG["params"]["conditioner"], **unet: Any) -> dict:
    config = {**CONFIG["params"], "conditioner": conditioner, "unet": {**CONFIG["params"]["unet"]}}
    config["unet"]["params"] = {**config["unet"]["params"], **unet}
    return {**CONFIG, "params": config}


def on_meta(checkpointing: bool = False) -> ExemplarTraining:
    with torch.device("meta"):
        return tiny_training(checkpointing)


def test_what_is_saved_agrees_with_a_real_step():
    training, n = tiny_training(), 2
    saved = SavedBytes([*training.parameters(), *training.buffers()])
    with saved:
        loss = empty_loss(training, n)
    assert saved.total > 4_000_000 and loss.grad_fn is not None
    assert step_cost(on_meta(), n, mixed=False).saved == saved.total


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_rises_as_in_a_real_step(checkpointing):
    training, n = tiny_training(checkpointing), 2
    for parameter in training.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    with LiveBytes([*training.parameters(), *(p.grad for p in training.parameters() if p.grad is not None)]) as live:
        empty_loss(training, n).backward()
    expected = step_cost(on_meta(checkpointing), n, mixed=False).activations
    assert live.peak == pytest.approx(expected, rel=0.02)


def test_a_storage_is_saved_once_and_parameters_are_not_counted():
    layers = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x = torch.zeros(7, 10)
    saved = SavedBytes(layers.parameters())
    with saved:
        layers(x).square().sum()
    # the input; the hidden layer's values, which ReLU and the second layer share; the output, for its square
    assert saved.total == 4 * 7 * (10 + 20 + 5)


def test_live_bytes_rise_and_fall():
    with LiveBytes() as live:
        a = torch.zeros(1000)
        b = a + 1
        view = b.view(10, 100)
        del a, b
        assert live.now == 4000
        view = None
        c = torch.zeros(500)
    assert (live.now, live.peak) == (2000, 8000)
    del view, c


@pytest.mark.parametrize("mode", [nullcontext, FakeTensorMode])
def test_attention_keeps_no_square(mode):
    batch, length, heads, width = 2, 64, 4, 32
    with mode():
        q, k, v = (torch.zeros(batch, length, width, requires_grad=True) for _ in range(3))
        with (saved := SavedBytes()):
            attend(q, k, v, heads)
    assert saved.total == 4 * (4 * batch * length * width + batch * heads * length)


@pytest.mark.parametrize("mode", [nullcontext, FakeTensorMode])
@pytest.mark.parametrize(("length", "others"), [(64, 64), (64, 1), (5, 77)])
def test_attention_is_two_products_forward_and_five_backward(mode, length, others):
    batch, heads, width = 2, 4, 32
    product = 2 * batch * heads * length * others * (width // heads)
    with mode():
        q = torch.zeros(batch, length, width, requires_grad=True)
        k, v = (torch.zeros(batch, others, width, requires_grad=True) for _ in range(2))
        with Flops() as flops:
            out = attend(q, k, v, heads)
            assert flops.total == 2 * product
            out.sum().backward()
    assert flops.total == 7 * product


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_attention_of_a_gpu_counts_as_in_torch(kernel):
    gradient, q, k, v = (torch.empty(2, 8, *rest, device="meta") for rest in ((64, 24), (64, 16), (77, 16), (77, 24)))
    for name, tensors in (("attention", (q, k, v)), ("attention_backward", (gradient, q, k, v))):
        operation = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_{name}")
        assert FORMULAS[str(operation)](*tensors) == flop_registry[operation](*tensors) > 0


@torch.library.custom_op("ldm_tests::foreign", mutates_args=())
def foreign(x: Tensor) -> Tensor:
    return x @ x


class ForeignBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return foreign(gradient)


FOREIGN = {
    "ldm_tests.foreign": foreign,
    "aten._fft_r2c": lambda x: torch.fft.rfft(x).abs(),
    "aten.linalg_inv_ex": torch.linalg.inv,
    "aten._cdist_forward": lambda x: torch.cdist(x, x),
    "aten.grid_sampler_2d": lambda x: F.grid_sample(x[None, None], x.view(1, 1, -1, 2), align_corners=False),
    "aten.mv": lambda x: torch.mv(x, x[0]),
    "aten._scaled_mm": lambda x: torch._scaled_mm(*(x.to(torch.float8_e4m3fn),) * 2, x[0, 0], x[0, 0]),
}


@pytest.mark.parametrize(("name", "operation"), FOREIGN.items())
def test_operations_without_a_formula_are_refused_by_name(name: str, operation: Callable):
    with refused(name), Flops():
        operation(torch.zeros(4, 4))


def test_operations_without_a_formula_are_refused_in_backward_passes():
    out = ForeignBackward.apply(torch.zeros(4, 4, requires_grad=True)).sum()
    with refused("ldm_tests.foreign"), Flops():
        out.backward()


@pytest.mark.parametrize("name", ["aten._fft_r2c", "ldm_tests.foreign"])
def test_a_training_with_an_operation_without_a_formula_is_refused(monkeypatch, name):
    monkeypatch.setattr(F, "gelu", FOREIGN[name])  # in the UNet's feed-forward layers
    with refused(name):
        step_cost(on_meta(), 1)


@pytest.mark.parametrize("mixed", [False, True])
def test_unconditional_trainings_are_counted(mixed):
    steps = []
    for checkpointing in (False, True):
        config = tiny_config(None, use_checkpoint=checkpointing, context_dim=None, in_channels=4)
        with torch.device("meta"):
            training = LatentDiffusionTraining(build(config), OPTIMISATION)
        steps.append(step_cost(training, 2, mixed))
    plain, checkpointed = steps
    assert plain.forward.keys() == {"UNet", "VAE encoder"} and checkpointed.forward == plain.forward
    assert plain.flops == pytest.approx(3 * plain.forward["UNet"] + plain.forward["VAE encoder"], rel=0.02)
    assert 0.5 * plain.forward["UNet"] < checkpointed.flops - plain.flops <= plain.forward["UNet"]


def test_checkpointing_keeps_less_and_computes_more():
    plain, checkpointed = (step_cost(on_meta(checkpointing), 4) for checkpointing in (False, True))
    assert checkpointed.forward == plain.forward
    assert checkpointed.saved < 0.6 * plain.saved
    assert checkpointed.activations < plain.activations
    again = checkpointed.flops - plain.flops
    assert 0.5 * plain.forward["UNet"] < again <= plain.forward["UNet"]


def test_other_trainings_are_refused():
    with torch.device("meta"):
        training = ContrastiveTraining(nn.Identity(), OPTIMISATION)
    with refused("ContrastiveTraining"):
        step_cost(training, 1)


def test_the_published_model_at_full_size():
    """Figures counted for the original network: UNet 797.0 GFLOP, VAE encoder 1116.7, CLIP 162.0; a training step is
    3 times the UNet's forward pass, one more with checkpointing, and the frozen networks': 4.79 or 5.58 TFLOP."""
    config = load_config("v1")
    with torch.device("meta"):
        training = build(config.training)
        unet = training.model.unet
        inputs = torch.empty(1, 9, 64, 64), torch.empty(1), torch.empty(1, 1, 768)
        for (
            parameter
        ) in unet.parameters():  # the query and key of one-token attention are computed, as the original does
            parameter.requires_grad_(True)
        with FlopCounterMode(display=False) as original:
            for stage in unet.modules():
                stage.use_checkpoint = False
            unet(*inputs)
        training = build(config.training)
    step = step_cost(training, 1)
    giga = {name: round(count / 1e9, 1) for name, count in step.forward.items()}
    full = original.get_total_flops() / 1e9
    assert round(full, 1) == 797.0
    assert giga == {"UNet": 771.3, "VAE encoder": 2 * 1116.7 - 0.1, "CLIP": 162.0, "bottleneck": 0.1}
    encoders = giga["VAE encoder"] + giga["CLIP"]
    assert round((3 * full + encoders) / 1000, 2) == 4.79
    assert round((4 * full + encoders) / 1000, 2) == 5.58
    assert step.flops / 1e9 == pytest.approx(4 * giga["UNet"] + encoders, rel=0.02)
    assert round(step.flops / 1e12, 2) == 5.40
    # by far less than without checkpointing (3.8 GB), and more than the bf16 copies of the weights (1.8 GB)
    assert 1.8e9 < step.activations < 2.2e9
    assert sum(p.numel() for p in training.parameters() if p.requires_grad) == 923_306_500 - dead(unet)


def dead(unet: nn.Module) -> int:
    """Parameters of the one-token attention that get no gradient."""
    blocks = [block for block in unet.modules() if hasattr(block, "attn2")]
    parts = [part for block in blocks for part in (block.attn2.to_q, block.attn2.to_k, block.norm2)]
    return sum(p.numel() for part in parts for p in part.parameters())
