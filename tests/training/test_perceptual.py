import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from ldm.checkpoints.lpips import make_lpips
from ldm.config import build, load_config
from ldm.models.autoencoder import AutoencoderKL
from ldm.training.autoencoder import AutoencoderTraining
from ldm.training.base import Optimisation
from ldm.training.perceptual import Perceptual
from tests.classifiers import classifier
from tests.refusals import assert_mentions, refusal_of, refused


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """As torchvision's, with one tensor of the classifier to stand for all of its."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    tensors = {f"features.{name}": tensor for name, tensor in classifier("vgg").state_dict().items()}
    torch.save(tensors | {"classifier.6.bias": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def lpips(file):
    return Perceptual(file)


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(3, 3, 40, 32, generator=generator) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=generator)).clamp(-1, 1)


def test_it_is_lpips_by_vgg16(lpips, pictures):
    tensors = {f"features.{name}": tensor for name, tensor in classifier("vgg").state_dict().items()}
    assert torch.equal(lpips(*pictures), make_lpips("vgg", tensors, "here")(*pictures))


def test_a_file_of_newer_torch_is_the_same(file, lpips, pictures, tmp_path):
    torch.save(torch.load(file, weights_only=True), tmp_path / "new.pth")
    assert torch.equal(Perceptual(tmp_path / "new.pth")(*pictures), lpips(*pictures))


def test_it_is_no_part_of_the_training(file):
    options = Optimisation(learning_rate=1.0e-3, weight_decay=0.0, warmup_steps=1, cooldown=0.0, seed=0)
    autoencoder = AutoencoderKL(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4, embed_dim=4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    training = AutoencoderTraining(autoencoder, 1.0e-6, 0.0, options, perceptual=Perceptual(file))
    assert torch.equal(torch.get_rng_state(), before)  # initial weights do not depend on it
    assert training.state_dict().keys() == training.weights().keys()
    assert len(list(training.parameters())) == len(list(autoencoder.parameters()))
    averaged = torch.optim.swa_utils.AveragedModel(training)
    assert averaged.module.perceptual is training.perceptual
    assert not any(p.requires_grad for p in training.perceptual.lpips.parameters())


def test_it_can_be_built_where_weights_take_no_memory(file, lpips, pictures):
    with torch.device("meta"):
        built = Perceptual(file)
    assert torch.equal(built(*pictures), lpips(*pictures))


def test_the_recipe_of_ldm(file):
    """It builds, at full size, and its weights are LDM's for sums over a picture of 256 pixels a side."""
    config = load_config("train/kl_f8", overrides=[f"training.params.perceptual.params.vgg16={file}"])
    with torch.device("meta"):
        training = build(config.training)
    values, latents = 3 * 256**2, 4 * 32**2
    assert training.autoencoder.downsampling == 8 and training.autoencoder.latent_channels == 4
    assert training.kl_weight * values / latents == pytest.approx(1.0e-6, rel=1e-3)
    assert training.adversarial.max_weight * values == pytest.approx(1.0e4, rel=1e-3)
    assert config.training.params.optimisation.params.learning_rate == pytest.approx(
        4.5e-6 * config.data.params.batch_size
    )
    without = load_config("train/kl_f8", overrides=["training.params.perceptual=null"])
    with torch.device("meta"):
        assert build(without.training).perceptual is None


def test_a_missing_file_says_where_to_get_it(tmp_path):
    message = refusal_of(Perceptual, tmp_path / "vgg16-397923af.pth")
    assert_mentions(message, tmp_path / "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth")
    assert_mentions(message, "training.params.perceptual")


def test_another_network_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with refused("linear.pth"):
        Perceptual(tmp_path / "linear.pth")
    torch.save({f"features.{k}": t for k, t in make_layers(cfgs["A"]).state_dict().items()}, tmp_path / "vgg11.pth")
    with refused("vgg11.pth", "features.2.weight"):
        Perceptual(tmp_path / "vgg11.pth")
