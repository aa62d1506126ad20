"""What a step of pixel diffusion computes, at toy width; and whole runs of a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import Dataset

from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.open import load
from ldm.config import build, load_config
from ldm.data.datamodule import DataModule
from ldm.diffusion.losses import min_snr_weight
from ldm.training.base import Optimisation
from ldm.training.loop.checkpoint_folder import TRAINER, WEIGHTS
from ldm.training.loop.fit import fit
from ldm.training.pixel_diffusion import PixelDiffusionTraining
from ldm.training.timesteps import LossAwareSampler
from ldm.utils.random import generator
from tests.diffusion.test_vlb import peer_term
from tests.golden_weights import fill
from tests.processes import train_together
from tests.refusals import refused
from tests.training.small import same_runs, same_trees
from tests.training.test_latent_diffusion import attach, rows

SIZE, T = 8, 10
OPTIMISATION = Optimisation(learning_rate=1e-3, weight_decay=0.0, warmup_steps=0, cooldown=0.0, seed=4)


def config(variance: str = "learned_range", prediction: str = "eps", **network: Any) -> dict[str, Any]:
    unet = {
        "in_channels": 3,
        "out_channels": 6 if variance == "learned_range" else 3,
        "model_channels": 32,
        "channel_mult": [1, 1],
        "num_res_blocks": 1,
        "attention_resolutions": [],
        "num_heads": 1,
        **network,
    }
    return {
        "target": "ldm.models.pixel_diffusion.PixelDiffusion",
        "params": {
            "unet": {"target": "ldm.models.unet.UNet", "params": unet},
            "schedule": {"target": "ldm.diffusion.schedule.Schedule.linear", "params": {"T": T, "end": 0.4}},
            "image_size": SIZE,
            "prediction": prediction,
            "variance": variance,
        },
    }


def training(variance: str = "learned_range", prediction: str = "eps", **options: Any) -> PixelDiffusionTraining:
    model = fill(build(config(variance, prediction))).requires_grad_(True)
    return attach(PixelDiffusionTraining(model, OPTIMISATION, **{"panel_steps": 5} | options))


def pictures(n: int) -> dict[str, Tensor]:
    return {"image": torch.randint(256, (n, 3, SIZE, SIZE), generator=generator("pixels")) / 127.5 - 1}


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_hybrid_loss(prediction):
    """The weighted error plus a thousandth of T times the bound's term, both by numpy."""
    made, batch = training(prediction=prediction, min_snr_gamma=5.0), pictures(4)
    seen = {}
    made.model.unet.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], out=output))
    t = torch.tensor([0, 1, T // 2, T - 1])
    drop = torch.zeros(4, dtype=torch.bool)
    loss = made.weighted_loss(batch, t, drop, made.draws(0, 4))

    eps = made.draws(0, 4).randn(3, SIZE, SIZE).double()
    a, x0 = made.model.schedule.alphas_cumprod[t].view(-1, 1, 1, 1), batch["image"].double()
    x = a.sqrt() * x0 + (1 - a).sqrt() * eps
    torch.testing.assert_close(seen["x"].double(), x, rtol=0, atol=1e-5)
    out, said = seen["out"].detach().double().chunk(2, dim=1)
    target, predicted = {
        "eps": (eps, (x - (1 - a).sqrt() * out) / a.sqrt()),
        "v": (a.sqrt() * eps - (1 - a).sqrt() * x0, a.sqrt() * x - (1 - a).sqrt() * out),
    }[prediction]
    simple = (out - target).square().mean((1, 2, 3)) * min_snr_weight(a, 5.0, prediction).flatten()
    betas = made.model.schedule.betas.numpy()
    args = zip(*(v.numpy() for v in (x0, predicted, x, said)), t.tolist(), strict=True)
    bound = [peer_term(*row, betas, "learned_range") for row in args]
    np.testing.assert_allclose(loss.detach().numpy(), simple.numpy() + T / 1000 * np.array(bound), rtol=1e-4)
    assert min(bound) > 0


def test_the_bound_moves_the_variance_and_not_the_prediction():
    made, batch, t = training(), pictures(3), torch.tensor([0, 5, T - 1])
    last = made.model.unet.out[-1].weight

    def gradients(part: int) -> Tensor:
        made.zero_grad()
        made.losses(batch, t, made.draws(0, 3))[part].sum().backward()
        return last.grad.abs().sum((1, 2, 3)) > 0

    assert gradients(0).tolist() == [True] * 3 + [False] * 3
    assert gradients(1).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_a_fixed_variance_leaves_the_plain_loss(variance):
    made, batch, t = training(variance), pictures(2), torch.tensor([3, 7])
    losses, bound = made.losses(batch, t, made.draws(0, 2))
    assert bound is None
    drop = torch.zeros(2, dtype=torch.bool)
    assert torch.equal(made.weighted_loss(batch, t, drop, made.draws(0, 2)), losses)
    assert torch.equal(made.loss(batch, t, drop, made.draws(0, 2)), losses)


def test_a_step_is_the_mean_of_its_items_whatever_the_parts():
    made, batch = training(), pictures(4)
    whole = made.training_step(batch, 0)
    attach(made, accumulate=4, loaded_at_once=1)
    parts = [made.training_step(rows(batch, slice(k, k + 1)), k) for k in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_pictures_of_another_size_are_refused():
    with refused("8x4", "model.params.image_size", 8):
        training().training_step({"image": torch.zeros(2, 3, SIZE, 4)}, 0)


def test_samples_are_pictures_and_do_not_change_with_their_number():
    made = training()
    two = made.sample(2)
    assert two.shape == (2, 3, SIZE, SIZE) and two.abs().max() <= 1 and not torch.equal(two[0], two[1])
    torch.testing.assert_close(made.sample(1), two[:1], rtol=0, atol=1e-5)
    assert torch.equal(made.pictures(pictures(2))["sample"], two)


def test_timesteps_of_another_name_are_refused():
    with refused("timesteps", "importance", "uniform", "loss_aware"):
        training(timesteps="importance")


@pytest.mark.parametrize("steps", [0, T + 1, 2.5])
def test_a_panel_of_steps_that_there_are_not_is_refused(steps):
    with refused("panel_steps", steps, 1, T):
        training(panel_steps=steps)


def test_a_model_of_classes_is_refused():
    with refused(5, "num_classes", "null"):
        PixelDiffusionTraining(build(config(num_classes=5)), OPTIMISATION, panel_steps=5)


def test_losses_reach_the_sampler_in_the_order_of_their_places():
    """And only when the whole batch of the step is there, so that its division changes no draw."""
    batch, states = pictures(4), []
    for accumulate in (1, 2, 4):
        made = attach(training(timesteps="loss_aware"), accumulate=accumulate, loaded_at_once=4 // accumulate)
        made.trainer.strategy.all_gather = lambda tensor, **_: tensor
        made.timesteps.counts.fill_(9)  # of ten
        for k in range(accumulate):
            assert made.timesteps.counts.sum() == 9 * T
            made.training_step(rows(batch, slice(k * 4 // accumulate, (k + 1) * 4 // accumulate)), k)
        assert made.timesteps.counts.sum() > 9 * T and made._seen == []
        states.append(made.timesteps.losses)
    torch.testing.assert_close(states[1], states[0])
    torch.testing.assert_close(states[2], states[0])


def test_rare_timesteps_count_for_more():
    made, batch = training(timesteps="loss_aware"), pictures(4)
    made.trainer.strategy.all_gather = lambda tensor, **_: tensor
    made.timesteps.counts.fill_(10)
    made.timesteps.losses[:] = torch.linspace(1, 4, T)[:, None]
    p, noise = made.timesteps.probabilities(), made.draws(0, 4)
    t, weight = made.timesteps.draw(noise)
    torch.testing.assert_close(weight.double(), 1 / (T * p[t]), rtol=1e-6, atol=0)
    losses = made.weighted_loss(batch, t, noise.rand() < 0, noise)
    torch.testing.assert_close(made.training_step(batch, 0), (losses * weight).mean())


CHANGES = {
    "ema": 0.9,
    "model.params.image_size": SIZE,
    "data.params.train.params.length": 16,
    "data.params.validation.params.length": 8,
    "data.params.batch_size": 16,
    "data.params.num_workers": 0,
    "validate_every": 2,
    "panel_every": 4,
    "training.params.panel_steps": 2,
    "trainer.precision": "32-true",
    "trainer.max_steps": 5,
    "trainer.log_every_n_steps": 1,
    "trainer.num_sanity_val_steps": 0,
    "trainer.enable_progress_bar": "false",
}


def run_config(**changes: object) -> DictConfig:
    """The shipped training of the prior, on the small network."""
    given = CHANGES | {name.replace("__", "."): value for name, value in changes.items()}
    found = load_config("train/toyworld_prior", overrides=[f"{key}={value}" for key, value in given.items()])
    found.model = OmegaConf.create(config())
    found.training.params.model = "${model}"
    return found


@pytest.mark.parametrize("how", ["uniform", "loss_aware"])
def test_a_resumed_run_goes_on_bitwise(tmp_path, monkeypatch, how):
    monkeypatch.setattr(LossAwareSampler.__init__, "__defaults__", (1, 0.001))  # warm after three steps
    changes = {"training.params.timesteps": how}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(run_config(**changes), whole)
    fit(run_config(**changes, trainer__max_steps=3), cut)
    state = torch.load(cut / "checkpoints" / "last" / TRAINER, weights_only=True).get("timesteps")
    assert (state is None) == (how == "uniform")
    if state is not None:
        sampler = LossAwareSampler(T)
        sampler.load_state_dict(state)
        assert sampler.probabilities().unique().numel() == T

    fit(run_config(**changes), cut, resume=True)
    assert same_runs(whole, cut)
    ends = [torch.load(run / "checkpoints" / "last" / TRAINER, weights_only=True) for run in (whole, cut)]
    assert same_trees(*(end.get("timesteps") for end in ends))
    assert (whole / "panel" / "step-000004.png").exists()
    assert all(name.startswith("unet.") for name in read_tensors(whole / WEIGHTS))  # nothing of the sampler
    load(whole / "config.yaml")


class Items(Dataset):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.rand(3, SIZE, SIZE, generator=generator("item", index)) * 2 - 1}


class Plain(PixelDiffusionTraining):
    """Stochastic gradient descent, whose weights differ by as much as the gradients do."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-2)


def train(folder: Path, devices: int) -> None:
    made = Plain(fill(build(config())).requires_grad_(True), OPTIMISATION, timesteps="loss_aware", panel_steps=5)
    made.timesteps = LossAwareSampler(T, history=1)  # warm after two steps
    data = DataModule(Items(), 16, seed=1)
    trainer = pl.Trainer(
        max_steps=4, accelerator="cpu", devices=devices, logger=False, enable_progress_bar=False,
        strategy="ddp" if devices > 1 else "auto", use_distributed_sampler=False,
        enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.accumulate_grad_batches = data.divide(devices)
    trainer.fit(made, datamodule=data)
    weights = {name: p.detach() for name, p in made.named_parameters()}
    torch.save([weights, made.timesteps.state_dict()], folder / f"{trainer.global_rank}.pt")


def as_one_of_two(rank: int, folder: Path) -> None:
    train(folder, devices=2)


def test_two_processes_learn_the_same_timesteps_as_one(tmp_path):
    (tmp_path / "alone").mkdir()
    train(tmp_path / "alone", devices=1)
    train_together(as_one_of_two, tmp_path)
    weights, state = torch.load(tmp_path / "alone" / "0.pt", weights_only=True)
    for rank in (0, 1):
        found, own = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(own, state, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found, weights, rtol=0, atol=1e-5)
    assert same_trees(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True)[1] for rank in (0, 1)))
    sampler = LossAwareSampler(T, history=1)
    sampler.load_state_dict(state)
    assert sampler.probabilities().unique().numel() == T  # what is drawn had become a matter of the losses
