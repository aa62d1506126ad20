import pytest
import torch

from ldm.models.autoencoder import AutoencoderKL, DiagonalGaussian
from tests.golden_weights import fill, load_golden


@pytest.fixture(scope="module")
def golden():
    return load_golden("vae_small")


@pytest.fixture(scope="module")
def vae(golden):
    options = golden["config"]["cfg"]["ddconfig"]
    names = "ch", "ch_mult", "num_res_blocks", "z_channels"
    model = AutoencoderKL(**{name: options[name] for name in names}, embed_dim=golden["config"]["cfg"]["embed_dim"])
    return fill(model, prefix="first_stage_model.")


def test_encode_agrees_with_the_original(vae, golden):
    posterior = vae.encode(golden["x"])
    torch.testing.assert_close(posterior.mean, golden["mean"], atol=5e-5, rtol=0)
    torch.testing.assert_close(posterior.mode(), golden["mean"], atol=5e-5, rtol=0)
    torch.testing.assert_close(posterior.logvar, golden["logvar_clamped"], atol=5e-5, rtol=0)
    torch.testing.assert_close(posterior.kl(), golden["kl"], atol=5e-5, rtol=5e-5)
    noise = torch.ones_like(posterior.mean)
    torch.testing.assert_close(posterior.sample(noise) - posterior.mean, golden["std"], atol=5e-5, rtol=0)


def test_epsilon_of_the_norms(vae):
    assert {module.eps for module in vae.modules() if isinstance(module, torch.nn.GroupNorm)} == {1e-6}


def test_decode_agrees_with_the_original(vae, golden):
    torch.testing.assert_close(vae.decode(golden["z"]), golden["decode_z"], atol=5e-5, rtol=0)
    torch.testing.assert_close(vae.decode(golden["mean"]), golden["decode_of_mean"], atol=5e-5, rtol=0)


def test_memory_format_changes_nothing(vae, golden):
    mean = vae.encode(golden["x"].to(memory_format=torch.channels_last)).mean
    torch.testing.assert_close(mean, golden["mean"], atol=5e-5, rtol=0)


def test_log_variance_is_clamped():
    posterior = DiagonalGaussian.from_moments(torch.tensor([0.0, 0.0, -100.0, 100.0]).reshape(1, 4, 1, 1))
    assert posterior.logvar.flatten().tolist() == [-30, 20]


def test_kl_is_zero_only_at_the_standard_normal():
    zero = torch.zeros(2, 4, 3, 3)
    assert DiagonalGaussian(zero, zero).kl().tolist() == [0, 0]
    assert (DiagonalGaussian(zero + 1, zero).kl() == 0.5 * 36).all()


def test_a_tiny_one_trains():
    torch.manual_seed(0)  # the layers' own initialisation draws from the global generator
    generator = torch.Generator().manual_seed(1)
    vae = AutoencoderKL(ch=32, ch_mult=(1, 2, 4), num_res_blocks=1, z_channels=4, embed_dim=4)
    assert vae.downsampling == 4 and vae.latent_channels == 4
    x = torch.rand(2, 3, 16, 24, generator=generator) * 2 - 1
    optimizer = torch.optim.Adam(vae.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        posterior = vae.encode(x)
        assert posterior.mean.shape == (2, 4, 4, 6)
        loss = (
            (vae.decode(posterior.sample(torch.randn(posterior.mean.shape, generator=generator))) - x).square().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in vae.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
