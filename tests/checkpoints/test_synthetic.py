from pickle import UnpicklingError

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.open import load
from tests.checkpoints import guided, official
from tests.refusals import assert_refused


@pytest.fixture
def config(tmp_path):
    OmegaConf.save(official.model_config(), tmp_path / "model.yaml")
    return tmp_path / "model.yaml"


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_it_is_in_the_official_format(tmp_path, run_script, config, suffix):
    path = tmp_path / f"synthetic{suffix}"
    done = run_script("make_synthetic_checkpoint.py", "--config", config, "--out", path)
    assert done.returncode == 0, done.stderr
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in official.paint_by_example().items()}
    found = read_tensors(path)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == expected
    weight = found["model.diffusion_model.input_blocks.0.0.weight"]
    assert weight.std().item() == pytest.approx((9 * 9) ** -0.5, rel=0.1)

    model = load(official.model_config(), path)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        z = model.encode(image, torch.zeros(1, *model.latent_shape(32, 32)))
        eps = model.unet(torch.cat([z, z, z[:, :1]], 1), torch.tensor([500]), model.conditioner(image))
        assert eps.isfinite().all() and model.decode(z).isfinite().all()


def test_it_follows_from_the_seed(tmp_path, run_script, config):
    runs = {"a.ckpt": 0, "b.safetensors": 0, "c.ckpt": 1}
    for name, seed in runs.items():
        assert (
            run_script("make_synthetic_checkpoint.py", "--config", config, "--out", name, "--seed", seed).returncode
            == 0
        )
    a, b, c = (read_tensors(tmp_path / name) for name in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["learnable_vector"], c["learnable_vector"])


def test_it_holds_training_objects_as_the_real_file_does(tmp_path, run_script, config):
    run_script("make_synthetic_checkpoint.py", "--config", config, "--out", "a.ckpt")
    with pytest.raises(UnpicklingError, match="TrainingObject"):  # a class that nobody who reads weights knows
        torch.load(tmp_path / "a.ckpt", weights_only=True)


def test_an_unknown_suffix_is_refused(tmp_path, run_script, config):
    done = run_script("make_synthetic_checkpoint.py", "--config", config, "--out", "a.bin")
    assert_refused(done, "a.bin")
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("kind", ["unet", "classifier"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_is_in_guided_diffusions_format(tmp_path, run_script, kind, suffix):
    """A bare state dict, in the order of the published one."""
    config = guided.config(num_classes=5) if kind == "unet" else guided.classifier()
    OmegaConf.save(config, tmp_path / "model.yaml")
    path = tmp_path / f"synthetic{suffix}"
    done = run_script("make_synthetic_checkpoint.py", "--config", tmp_path / "model.yaml", "--out", path)
    assert done.returncode == 0, done.stderr
    if suffix == ".pt":
        expected = {name: tensor.shape for name, tensor in guided.bare(config).items()}
        assert [(name, t.shape) for name, t in torch.load(path, weights_only=True).items()] == list(expected.items())

    model, x, t = load(config, path), torch.randn(1, 3, 16, 16), torch.tensor([500])
    out = model(x, t) if kind == "classifier" else model.unet(x, t, y=torch.tensor([2]))
    assert out.isfinite().all() and 0.05 < out.std() < 20


def test_a_config_without_a_model_is_refused(tmp_path, run_script):
    done = run_script("make_synthetic_checkpoint.py", "--config", "models/kl_f8", "--out", tmp_path / "a.pt")
    assert_refused(done, "models/kl_f8", "model")
