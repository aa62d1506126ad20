from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from ldm.data.datamodule import DataModule
from ldm.models.autoencoder import AutoencoderKL
from ldm.models.discriminator import PatchDiscriminator
from ldm.training.adversarial import Adversarial, adaptive_weight, hinge_loss
from ldm.training.autoencoder import AutoencoderTraining
from ldm.training.base import Optimisation
from ldm.utils.random import generator
from tests.processes import train_together

SIDE = 16
VALUES, LATENTS = 3 * SIDE**2, 4 * (SIDE // 2) ** 2  # of a picture


class Squares:
    """Stands in for LPIPS, which has tests of its own."""

    weight = 0.5

    def __call__(self, a, b):
        return (a - b).square().mean((1, 2, 3))


class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        corners = torch.rand(1, 3, 2, 2, generator=generator("picture", index)) * 2 - 1
        return {"image": nn.functional.interpolate(corners, (SIDE, SIDE), mode="bilinear")[0]}


def make(adversarial=None, perceptual=None, kl_weight=1.0e-6, edge_weight=0.0, learning_rate=1.0e-3):
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(ch=32, ch_mult=(1, 1), num_res_blocks=1, z_channels=4, embed_dim=4)
    options = Optimisation(learning_rate, weight_decay=0.1, warmup_steps=1, cooldown=0.0, seed=0, betas=(0.5, 0.9))
    return AutoencoderTraining(autoencoder, kl_weight, edge_weight, options, perceptual, adversarial)


def opponent(start=0, **options):
    torch.manual_seed(1)
    return Adversarial(PatchDiscriminator(ndf=8, n_layers=2), start, **options)


def fit(training, steps, **options):
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, **options,
    )  # fmt: skip
    data = DataModule(Pictures(), batch_size=4)
    data.divide(trainer.world_size)
    trainer.fit(training, datamodule=data)
    return training


@pytest.fixture
def batch():
    data = Pictures()
    return {"image": torch.stack([data[k]["image"] for k in range(4)])}


def one_step(training, batch, step=0):
    """The loss that is minimised and what is logged, outside of a Trainer."""
    training.trainer = SimpleNamespace(
        accumulate_grad_batches=1, world_size=1, global_rank=0, global_step=step,
        datamodule=SimpleNamespace(loaded_at_once=4),
    )  # fmt: skip
    logged = {}
    training.report = logged.update
    outputs = training.training_step(batch, 0)
    if training.adversarial is None:
        return outputs, logged
    assert torch.equal(outputs["watched"], logged["loss"])  # the autoencoder's own, whether the other plays or not
    return outputs["loss"], logged


def test_hinge_loss():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert float(hinge_loss(real, fake)) == pytest.approx(((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3) / 2)


def test_adaptive_weight_is_the_ratio_of_gradients():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    x, y = torch.tensor([3.0, 4.0]), torch.tensor([0.6, 0.8])
    weight = adaptive_weight(2 * (w * x).sum(), -(w * y).sum(), w)
    assert float(weight) == pytest.approx(10 / (1 + 1e-4)) and not weight.requires_grad
    assert float(adaptive_weight(2 * (w * x).sum(), 0 * (w * y).sum(), w)) == pytest.approx(10 / 1e-4)


def reference(training, image, noise, bound):
    """LDM's two losses, as sums over a picture; those of the autoencoder and of the discriminator."""
    network, judge = training.autoencoder, training.adversarial.discriminator
    posterior = network.encode(image)
    reconstruction = network.decode(posterior.sample(noise))
    distances = (reconstruction - image).square().mean((1, 2, 3))
    nll = ((reconstruction - image).abs() + 0.5 * distances.view(-1, 1, 1, 1)).sum() / len(image)
    generator_loss = -judge(reconstruction).mean()
    last = network.decoder.conv_out.weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (nll, generator_loss)]
    weight = 0.5 * (norms[0] / (norms[1] + 1e-4)).clamp(0, bound).detach()
    loss = nll + 1.0e-6 * posterior.kl().sum() / len(image) + weight * generator_loss
    real, fake = judge(image), judge(reconstruction.detach())
    return loss, 0.5 * (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean())


@pytest.mark.parametrize("bound", [1.0e4, 100.0])  # one that is not reached, and one that is
def test_gradients_are_those_of_ldms_losses(batch, bound):
    training = make(opponent(max_weight=bound / VALUES), Squares(), kl_weight=1.0e-6 * LATENTS / VALUES)
    loss, logged = one_step(training, batch)
    assert (float(logged["adaptive_weight"]) == pytest.approx(bound / VALUES)) == (bound == 100)
    loss.backward()
    found = {name: p.grad.clone() for name, p in training.named_parameters()}

    noise = training.draws(0, 4).randn(4, SIDE // 2, SIDE // 2)
    of_autoencoder, of_discriminator = reference(training, batch["image"], noise, bound)
    for network, loss, scale in (
        ("autoencoder", of_autoencoder, VALUES),
        ("adversarial.discriminator", of_discriminator, 1),
    ):
        parameters = dict(training.get_submodule(network).named_parameters(prefix=network))
        gradients = torch.autograd.grad(loss, parameters.values(), retain_graph=True)
        largest = max(float(gradient.abs().max()) for gradient in gradients)
        for name, gradient in zip(parameters, gradients, strict=True):
            torch.testing.assert_close(found[name] * scale, gradient, rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_each_player_has_its_own_loss(batch):
    training = make(opponent())
    _, logged = one_step(training, batch)
    players = {"generator": training.autoencoder, "discriminator": training.adversarial.discriminator}
    for loss, player in ((name, other) for name in players for other in players):
        gradients = torch.autograd.grad(
            logged[loss], list(players[player].parameters()), allow_unused=True, retain_graph=True
        )
        found = [gradient is not None and bool(gradient.any()) for gradient in gradients]
        assert any(found) == (loss == player)


def test_running_statistics_move_with_the_discriminators_own_passes(batch):
    """Not with the pass that judges for the autoencoder: real pictures, then reconstructions."""
    training, alone = make(opponent()), opponent().discriminator
    torch.nn.init.normal_(training.autoencoder.decoder.conv_out.weight)  # far from the pictures
    one_step(training, batch)
    noise = training.draws(0, 4).randn(4, SIDE // 2, SIDE // 2)
    reconstruction = training.autoencoder.decode(training.autoencoder.encode(batch["image"]).sample(noise))
    for pictures in (batch["image"], reconstruction):
        alone(pictures)
    found = dict(training.adversarial.discriminator.named_buffers())
    for name, buffer in alone.named_buffers():
        torch.testing.assert_close(found[name], buffer)
    assert int(found["main.3.num_batches_tracked"]) == 2


def test_before_its_start_the_discriminator_changes_nothing():
    early, without = (fit(training, 3, gradient_clip_val=0.1) for training in (make(opponent(start=3)), make()))
    for name, tensor in without.weights().items():
        assert torch.equal(early.weights()[name], tensor), name
    for found, untouched in zip(early.adversarial.parameters(), opponent().parameters(), strict=True):
        assert torch.equal(found, untouched)  # no weight decay either
    assert not any(parameter in early.optimizers().state for parameter in early.adversarial.parameters())


def test_from_its_start_on_it_plays():
    training = fit(make(opponent(start=2)), 3)
    steps = {int(training.optimizers().state[p]["step"]) for p in training.adversarial.parameters()}
    assert steps == {1}
    assert not torch.equal(training.autoencoder.quant_conv.weight, fit(make(), 3).autoencoder.quant_conv.weight)


def test_neither_loss_nor_draws_depend_on_parts_that_are_absent(batch):
    """ToyWorld's recipe, written out."""
    training = make(edge_weight=1.0, kl_weight=0.25)
    loss, logged = one_step(training, batch)
    image, autoencoder = batch["image"], training.autoencoder
    posterior = autoencoder.encode(image)
    difference = autoencoder.decode(posterior.sample(training.draws(0, 4).randn(4, SIDE // 2, SIDE // 2))) - image
    rows, columns = (difference.diff(dim=d).abs().mean() for d in (-2, -1))
    expected = difference.abs().mean() + rows + columns + 0.25 * posterior.kl().sum() / (4 * LATENTS)
    torch.testing.assert_close(loss, expected)
    assert logged.keys() == {"loss", "l1", "kl"}


def test_a_few_steps_lower_the_losses(batch):
    training = make(opponent(start=10), Squares(), learning_rate=2.0e-3)
    _, before = one_step(training, batch)
    training = fit(make(opponent(start=10), Squares(), learning_rate=2.0e-3), 40)
    _, after = one_step(training, batch)
    for name in ("l1", "lpips", "loss"):
        assert after[name] < 0.5 * before[name], name


def test_pictures_for_the_panel_and_the_peak_signal_to_noise_ratio(batch):
    training = make(perceptual=Squares()).eval()
    with torch.no_grad():
        pictures = training.pictures(batch)
        logged = {}
        training.log_dict = lambda values, **options: logged.update(values)
        training.validation_step(batch, 0)
    assert list(pictures) == ["image", "reconstruction"] and pictures["image"] is batch["image"]
    found = pictures["reconstruction"]
    assert found.shape == (4, 3, SIDE, SIDE) and found.abs().max() <= 1
    ratios = [10 * torch.log10(4 / (a - b).square().mean()) for a, b in zip(found, batch["image"], strict=True)]
    assert float(logged["val/psnr"]) == pytest.approx(float(sum(ratios) / 4), rel=1e-5)
    torch.testing.assert_close(logged["val/lpips"], (found - batch["image"]).square().mean())


def as_one_of_two(rank, folder):
    training = fit(make(opponent(start=1)), 2, devices=2, strategy="ddp", default_root_dir=folder)
    torch.save(dict(training.named_parameters()), folder / f"{rank}.pt")


def test_two_processes_stay_equal_through_the_start(tmp_path):
    """Weights without a gradient would stop the first step, gradients that are not exchanged part the second."""
    train_together(as_one_of_two, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    start = dict(make(opponent()).named_parameters())
    for name in first:
        assert torch.equal(first[name], second[name]), name
        if name.endswith("weight"):  # the gradient of the last bias is zero within the hinges
            assert not torch.equal(first[name], start[name]), name
