"""What a machine or a config cannot do is said in one line, before anything is loaded."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from ldm.data.datamodule import DataModule
from ldm.training.loop.average import Averages
from ldm.training.loop.budget import Budget, budget, check_disk, describe
from ldm.training.loop.checkpoint_folder import WEIGHTS
from ldm.training.loop.fit import fit
from ldm.training.loop.start import start
from ldm.training.loop.trainer import check_devices, make_trainer
from tests.refusals import refused
from tests.training.small import small_config


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("max_step", 5, ("trainer.max_step", "max_steps")),
        ("accumulate_grad_batches", 4, ("trainer.accumulate_grad_batches", "data.params.batch_per_device")),
        ("max_epochs", 4, ("trainer.max_epochs", "trainer.max_steps")),
        ("val_check_interval", 4, ("trainer.val_check_interval", "validate_every")),
        ("callbacks", [], "trainer.callbacks"),
        ("max_steps", -1, ("trainer.max_steps", -1)),
        ("max_steps", None, ("trainer.max_steps", None)),
        ("precision", "fp17", ("trainer", "fp17")),
        ("strategy", "dpp", ("trainer", "dpp")),
    ],
)
def test_keys_of_the_trainer(tmp_path, key, value, wanted):
    config = small_config()
    config.trainer[key] = value
    with refused(wanted):
        make_trainer(config, tmp_path, [])


def test_settings_reach_the_trainer(tmp_path):
    trainer = make_trainer(small_config(trainer__log_every_n_steps=50, validate_every=7), tmp_path, [])
    assert (trainer.log_every_n_steps, trainer.val_check_interval, trainer.check_val_every_n_epoch) == (5, 7, None)
    trainer = make_trainer(small_config(validate_every="null"), tmp_path, [])
    assert trainer.limit_val_batches == 0


@pytest.mark.parametrize(
    ("here", "accelerator", "devices", "wanted"),
    [
        (1, "auto", 8, ("trainer.devices=8", 1, "trainer.devices=1")),
        (2, "gpu", "4", ("trainer.devices=4", 2, "trainer.devices=2")),
        (2, "gpu", [0, 3], ("trainer.devices=[0,3]", 2)),
        (2, "cuda", "0,2", ("trainer.devices=0,2", 2)),
        (0, "auto", 8, ("trainer.devices=8", "GPU", "trainer.devices=1")),
        (2, "auto", "all", ("trainer.devices=all", "auto")),
        (0, "gpu", 1, ("trainer.accelerator=gpu", "trainer.accelerator=cpu")),
        (0, "gpu", "auto", "trainer.accelerator=gpu"),
        (4, "auto", 4, None), (4, "gpu", "0,3", None), (4, "gpu", "1,", None), (4, "auto", -1, None),
        (0, "cpu", 8, None), (0, "auto", 1, None), (0, "auto", "auto", None),
    ],
)  # fmt: skip
def test_more_devices_than_there_are(monkeypatch, here, accelerator, devices, wanted):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: here)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    if wanted is None:
        return check_devices(accelerator, devices)
    with refused(wanted):
        check_devices(accelerator, devices)


def test_the_budget_is_what_the_files_and_tensors_are(tmp_path):
    config = small_config(trainer__max_steps=1, validate_every="null")
    fit(config, tmp_path)
    training, last = start(config), tmp_path / "checkpoints" / "last"
    needs = budget(training, Averages(config.ema))
    count = sum(p.numel() for p in training.parameters())
    assert needs.memory == 4 * count * 5  # weight, gradient, two moments, average
    assert needs.weights == pytest.approx((last / WEIGHTS).stat().st_size, rel=0.02)
    assert needs.checkpoint == pytest.approx(sum(file.stat().st_size for file in last.iterdir()), rel=0.02)
    without = budget(training, Averages(None))
    assert without.memory == 4 * count * 4 and without.checkpoint == 4 * count * 3


def test_too_little_disk_is_told_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**7))
    with refused("10.0 MB", "7.5 MB"):
        fit(small_config(), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())  # so that nobody takes it for a run

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "there").write_bytes(bytes(5 * 10**6))
    check_disk(tmp_path, Budget(0, weights=10**6, checkpoint=6 * 10**6), best=True)  # 12 + 2 - 5 < 10
    with refused("11.0 MB"):
        check_disk(tmp_path, Budget(0, weights=2 * 10**6, checkpoint=6 * 10**6), best=True)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with refused("--logdir", tmp_path / "file/run"):
        fit(small_config(), tmp_path / "file" / "run")


def test_the_start_says_what_will_be_done():
    config = small_config(data__params__batch_per_device=1, training__params__optimisation__params__cooldown=0.25)
    training = start(config)
    data = DataModule(range(10), 4, 1)
    trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=data.divide(2), max_steps=5, precision="bf16-mixed")
    said = describe(training, trainer, data, Budget(3 * 10**9, 10**8, 2 * 10**8))
    assert "JudgeTraining: 0.47 M of 0.47 M parameters are trained, in bf16-mixed" in said
    assert "learning rate 0.002 after 3 steps of warm-up, falling to 0 over the last 25%" in said
    assert "batch 4 = 2 devices x 1 x 2 accumulated; 5 steps = 2.5 epochs of 10 items" in said
    assert "memory: 3.0 GB for weights" in said and "disk: 200.0 MB per checkpoint" in said
