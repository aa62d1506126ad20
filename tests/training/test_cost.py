"""The cost of a training step, counted without a GPU: against arithmetic, published figures and real tensors."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ldm.config import build, load_config
from ldm.nn.attention import attend
from ldm.training.base import Optimisation
from ldm.training.contrastive import ContrastiveTraining
from ldm.training.cost import LiveBytes, SavedBytes, empty_loss, step_cost
from ldm.training.exemplar import ExemplarTraining
from ldm.utils.errors import UserError
from tests.tiny import CONFIG

OPTIMISATION = Optimisation(1e-4, 0.01, 1, 0.0, 0)


def tiny_training(checkpointing: bool = False) -> ExemplarTraining:
    config = {**CONFIG["params"], "unet": {**CONFIG["params"]["unet"]}}
    config["unet"]["params"] = {**config["unet"]["params"], "use_checkpoint": checkpointing}
    return ExemplarTraining(build({**CONFIG, "params": config}), OPTIMISATION, 0.2)


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
    with pytest.raises(UserError, match="ContrastiveTraining: the cost of"):
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
    # by far less than without checkpointing (3.8 GB), and more than the bf16 copies of the weights (1.8 GB)
    assert 1.8e9 < step.activations < 2.2e9
    assert sum(p.numel() for p in training.parameters() if p.requires_grad) == 923_306_500 - dead(unet)


def dead(unet: nn.Module) -> int:
    """Parameters of the one-token attention that get no gradient."""
    blocks = [block for block in unet.modules() if hasattr(block, "attn2")]
    parts = [part for block in blocks for part in (block.attn2.to_q, block.attn2.to_k, block.norm2)]
    return sum(p.numel() for part in parts for p in part.parameters())
