"""What weights tell: damage, moving averages, the order of the UNet's input channels."""

import pytest
import torch

from ldm.checkpoints.surgery import expand_in_channels
from ldm.doctor.file import FIRST_CONV
from ldm.doctor.weights import MASK_FIRST, MASK_LAST, averages, damage, is_untrained, order_by_weights
from tests.checkpoints import official


def test_damage():
    good = {"a": torch.ones(2, 2), "b": torch.zeros(3), "i": torch.zeros(2, dtype=torch.int64), "e": torch.empty(0)}
    assert damage(good).status == "ok"
    for bad in (float("nan"), float("inf"), -float("inf")):
        finding = damage({**good, "c": torch.tensor([1.0, bad])})
        assert finding.status == "PROBLEM" and "1 (c)" in finding.text
    half = {f"m{i}": torch.ones(2, 2) for i in range(20)}
    assert damage({**half, "zero": torch.zeros(2, 2)}).status == "note"
    assert damage({"zero": torch.zeros(2, 2)}).status == "PROBLEM"


def test_moving_averages():
    plain = official.stable_diffusion()
    used, finding = averages(plain, "FILE")
    assert finding.status == "ok" and "no separate averages" in finding.text

    other = official.averages(plain)  # the raw weights with the other sign; the counter says 7
    used, finding = averages(other, "FILE")
    assert finding.status == "ok" and "7 updates" in finding.text
    name = "model.diffusion_model.out.2.weight"
    assert torch.equal(used[name], -plain[name])

    frozen = {**other, "model_ema.num_updates": torch.tensor(0)}
    assert averages(frozen, "FILE")[1].short == "moving averages were never updated"

    equal = {key: -value if key.startswith("model_ema.d") and value.ndim else value for key, value in other.items()}
    finding = averages(equal, "FILE")[1]
    assert finding.status == "note" and "all equal to the raw weights" in finding.text

    del other["model_ema.diffusion_modelout2weight"]
    used, finding = averages(other, "FILE")
    assert finding.status == "PROBLEM" and "1 missing" in finding.text
    assert torch.equal(used[name], plain[name])


def draw(order, likeness, out=320, seed=0):
    """First-layer weights in which the masked latent's filters have a cosine of about `likeness` with the latent's."""
    generator = torch.Generator().manual_seed(seed)
    noisy, own, mask = (torch.randn(out, n, 3, 3, generator=generator) for n in (4, 4, 1))
    masked = likeness * noisy + (1 - likeness**2) ** 0.5 * own
    return torch.cat([noisy, masked, 2 * mask] if order == MASK_LAST else [noisy, 2 * mask, masked], dim=1)


@pytest.mark.parametrize("order", [MASK_LAST, MASK_FIRST])
@pytest.mark.parametrize("likeness", [0.1, -0.2, 0.9])
def test_the_order_of_channels_is_told_from_filters(order, likeness):
    assert {order_by_weights(draw(order, likeness, seed=seed))[0] for seed in range(20)} == {order}


def test_the_order_is_not_told_from_chance():
    assert {order_by_weights(draw(MASK_LAST, 0.0, out=64, seed=seed))[0] for seed in range(300)} == {None}


def test_the_order_is_told_from_the_shipped_weights(toyworld):
    weight = toyworld["unet.input_blocks.0.0.weight"]
    swapped = weight[:, [0, 1, 2, 3, 8, 4, 5, 6, 7]]
    assert order_by_weights(weight)[0] == MASK_LAST
    assert order_by_weights(swapped)[0] == MASK_FIRST


def test_extended_channels_are_untrained():
    weight = {FIRST_CONV: torch.ones(8, 4, 3, 3)}
    assert is_untrained(expand_in_channels(weight, 9, "FILE")[FIRST_CONV])
    assert not is_untrained(torch.ones(8, 9, 3, 3))
