import math

import pytest
import torch
import torch.nn.functional as F

from ldm.models.layers import Downsample, ResBlock, Upsample, timestep_embedding, zero_init
from tests.golden_weights import fill


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample", [None, "up", "down"])
@pytest.mark.parametrize("out_channels", [32, 64])
def test_residual_block_written_out(scale_shift, resample, out_channels):
    block = fill(ResBlock(32, out_channels, 12, scale_shift=scale_shift, resample=resample)).double()
    x, emb = noise(2, 32, 4, 6), noise(2, 12)

    def normed(x, norm):
        return F.group_norm(x, 32, norm.weight, norm.bias, eps=1e-5)

    def resize(x):
        if resample == "up":
            return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)) if resample == "down" else x

    h = block.in_layers[2](resize(F.silu(normed(x, block.in_layers[0]))))
    shift = block.emb_layers[1](F.silu(emb)).reshape(2, -1, 1, 1)
    if scale_shift:
        h = normed(h, block.out_layers[0]) * (1 + shift[:, :out_channels]) + shift[:, out_channels:]
    else:
        h = normed(h + shift, block.out_layers[0])
    expected = block.skip_connection(resize(x)) + block.out_layers[3](F.silu(h))
    torch.testing.assert_close(block(x, emb), expected, atol=1e-12, rtol=0)


def test_residual_block_starts_as_the_identity():
    x = noise(2, 32, 4, 4)
    assert torch.equal(ResBlock(32, 32, 12).double()(x, noise(2, 12)), x)


def test_dropout_acts_in_training_alone():
    block = fill(ResBlock(32, 32, 12, dropout=0.5)).double()
    x, emb = noise(2, 32, 4, 4), noise(2, 12)
    assert torch.equal(block(x, emb), block(x, emb))
    block.train()
    assert not torch.equal(block(x, emb), block(x, emb))


def test_resampling_halves_and_doubles():
    x = torch.ones(1, 32, 6, 8)
    assert Downsample(32)(x).shape == (1, 32, 3, 4)
    assert Upsample(32)(x).shape == (1, 32, 12, 16)


def test_zero_init_also_works_without_data():
    layer = zero_init(torch.nn.Linear(3, 3))
    assert not layer.weight.any() and not layer.bias.any()
    with torch.device("meta"):
        assert zero_init(torch.nn.Linear(3, 3)).weight.is_meta


@pytest.mark.parametrize("dim", [8, 9])
def test_timestep_embedding_is_the_formula(dim):
    t = torch.tensor([0, 1, 500, 999])
    embedding = timestep_embedding(t, dim)
    assert embedding.dtype == torch.float32 and embedding.shape == (4, dim)
    for row, time in zip(embedding.tolist(), t.tolist(), strict=True):
        angles = [time * 10000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dim % 2)
        assert row == pytest.approx(expected, abs=1e-4)


def test_fractional_times():
    whole, half = timestep_embedding(torch.tensor([3.0, 3.5]), 16)
    assert (whole - half).abs().max() > 0.01
    torch.testing.assert_close(whole, timestep_embedding(torch.tensor([3]), 16)[0])
