import pytest
import torch
import torch.nn.functional as F

from ldm.models.initialization import zero_init
from ldm.models.residual import Downsample, ResBlock, Upsample
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
