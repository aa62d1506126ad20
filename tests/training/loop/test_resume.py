"""A run that ends before its time goes on as if nothing had happened."""

import logging
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ldm.checkpoints.io import read_metadata
from ldm.config import MOVED, load_config
from ldm.training.judge import JudgeTraining
from ldm.training.loop.checkpoint_folder import TRAINER, WEIGHTS
from ldm.training.loop.fit import fit
from tests.golden_weights import GOLDEN
from tests.refusals import assert_mentions, refused
from tests.training.small import same_files, same_runs, small_config, stop_at


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An uninterrupted run of five steps."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    fit(small_config(), folder)
    return folder


@pytest.mark.parametrize(
    ("step", "signum"), [(1, signal.SIGTERM), (2, signal.SIGINT), (3, getattr(signal, "SIGUSR1", signal.SIGTERM))]
)
def test_a_signal_saves_and_stops_and_resume_goes_on_bitwise(run, tmp_path, monkeypatch, caplog, step, signum):
    stop_at(monkeypatch, step, signum)
    with caplog.at_level(logging.INFO, "ldm"), pytest.raises(SystemExit) as stopped:
        fit(small_config(), tmp_path)
    monkeypatch.undo()
    assert stopped.value.code == 128 + signum
    said = (signal.Signals(signum).name, f"step {step + 1}", "--resume")
    assert_mentions(caplog.messages[-1], said)
    assert read_metadata(tmp_path / "checkpoints" / "last" / WEIGHTS)["step"] == str(step + 1)
    assert not (tmp_path / WEIGHTS).exists()
    fit(small_config(), tmp_path, resume=True)
    assert same_runs(run, tmp_path)
    assert not same_files(run / "checkpoints" / "last" / WEIGHTS, run / "checkpoints" / "best" / WEIGHTS)


def test_a_run_that_does_not_save_still_does_when_it_is_told_to_stop(tmp_path, monkeypatch):
    fit(small_config(save_every="null"), tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints" / "last").exists() and (tmp_path / "whole" / WEIGHTS).exists()
    stop_at(monkeypatch, 2)
    with pytest.raises(SystemExit):
        fit(small_config(save_every="null"), tmp_path / "cut")
    monkeypatch.undo()
    fit(small_config(), tmp_path / "cut", resume=True)
    assert same_files(tmp_path / "whole" / WEIGHTS, tmp_path / "cut" / WEIGHTS)


@pytest.mark.parametrize(
    "change", [{"ema": "null"}, {"data__params__batch_per_device": 1}, {"trainer__precision": "bf16-mixed"}]
)
def test_without_averages_amid_accumulation_or_in_mixed_precision(tmp_path, monkeypatch, change):
    fit(small_config(**change), tmp_path / "whole")
    stop_at(monkeypatch, 2)
    with pytest.raises(SystemExit):
        fit(small_config(**change), tmp_path / "cut")
    monkeypatch.undo()
    fit(small_config(**change), tmp_path / "cut", resume=True)
    assert same_runs(tmp_path / "whole", tmp_path / "cut")
    state = torch.load(tmp_path / "cut" / "checkpoints" / "last" / TRAINER, weights_only=True)["state_dict"]
    assert bool(state) == ("ema" not in change)  # the raw weights stand beside their averages only


def test_a_run_goes_on_with_other_devices_worth_of_accumulation(run, tmp_path, monkeypatch):
    stop_at(monkeypatch, 2)
    with pytest.raises(SystemExit):
        fit(small_config(), tmp_path)
    monkeypatch.undo()
    fit(small_config(data__params__batch_per_device=2), tmp_path, resume=True)
    expected, found = load_file(run / WEIGHTS), load_file(tmp_path / WEIGHTS)
    for name in expected:  # float16; gradients are the same but for the order of sums
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=2e-3)


def test_a_finished_run_does_nothing_or_goes_on_bitwise(run, tmp_path):
    config = small_config(trainer__max_steps=3)
    fit(config, tmp_path)
    short = load_file(tmp_path / WEIGHTS)
    fit(config, tmp_path, resume=True)
    assert all(torch.equal(short[name], tensor) for name, tensor in load_file(tmp_path / WEIGHTS).items())
    fit(small_config(), tmp_path, resume=True)
    assert same_runs(run, tmp_path)


def test_resume_builds_nothing_at_random(run, tmp_path, monkeypatch):
    fit(small_config(trainer__max_steps=3), tmp_path)

    def drawn(*_, **__):
        raise AssertionError("initial weights are drawn")

    monkeypatch.setattr("pytorch_lightning.seed_everything", drawn)
    fit(small_config(), tmp_path, resume=True)
    assert same_runs(run, tmp_path)


def test_a_moved_run_goes_on(run, tmp_path):
    fit(small_config(trainer__max_steps=3), tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    fit(small_config(), moved, resume=True)
    assert same_runs(run, moved)


def test_without_a_checkpoint_resume_starts_afresh(run, tmp_path):
    (tmp_path / "checkpoints" / ".last.new").mkdir(parents=True)  # it was killed in its first save
    (tmp_path / "checkpoints" / ".last.new" / WEIGHTS).write_bytes(b"half")
    fit(small_config(), tmp_path, resume=True)
    assert same_runs(run, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best", "last"]


def test_a_used_folder_is_refused_without_resume(run):
    with refused(run, "--resume"):
        fit(small_config(), run)


def test_another_config_is_refused_and_said(run):
    changed = small_config(training__params__optimisation__params__learning_rate=2e-5, ema=0.5)
    with refused("--resume", run, "ema", 0.99, 0.5) as stopped:
        fit(changed, run, resume=True)
    learning_rate = "training.params.optimisation.params.learning_rate"
    assert_mentions(str(stopped.value), learning_rate, 0.002, 2e-05)
    changed = small_config(data__params__batch_size=8, trainer__gradient_clip_val=1.0, seed=3, model__params__size=8)
    with refused("data.params.batch_size", 4, 8):
        fit(changed, run, resume=True)


def test_what_changes_nothing_that_is_learned_may_change(run, tmp_path):
    fit(small_config(trainer__max_steps=3), tmp_path)
    config = small_config(
        save_every=60, validate_every=1, monitor="null", weights="bfloat16", data__params__batch_per_device=4,
        trainer__log_every_n_steps=2,
    )  # fmt: skip
    fit(config, tmp_path, resume=True)
    last = Path("checkpoints") / "last" / WEIGHTS
    assert same_files(run / last, tmp_path / last)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    original = JudgeTraining.training_step

    def broken(self, batch, index):
        loss = original(self, batch, index)
        return loss * torch.nan if self.global_step == 3 else loss

    monkeypatch.setattr(JudgeTraining, "training_step", broken)
    with refused("step 4", "nan", tmp_path / "checkpoints/last"):
        fit(small_config(save_every=0, validate_every="null"), tmp_path)
    last = load_file(tmp_path / "checkpoints" / "last" / WEIGHTS)
    assert all(tensor.isfinite().all() for tensor in last.values())
    assert read_metadata(tmp_path / "checkpoints" / "last" / WEIGHTS)["step"] == "3"


def test_the_best_weights_are_those_of_the_best_validation(tmp_path, monkeypatch):
    values = iter([3.0, 1.0, float("nan"), 2.0, 1.0])
    monkeypatch.setattr(JudgeTraining, "validation_step", lambda self, batch, _: self.log("val/x", next(values)))
    monitored = {"monitor": "{metric: val/x, mode: min}", "validate_every": 1, "trainer.limit_val_batches": 1}
    fit(small_config(**monitored), tmp_path)
    best = tmp_path / "checkpoints" / "best" / WEIGHTS
    assert read_metadata(best)["step"] == "2" and read_metadata(best)["val/x"] == "1.0"
    values = iter([2.0, 0.5])
    fit(small_config(**monitored, trainer__max_steps=7), tmp_path, resume=True)
    assert read_metadata(best)["step"] == "7"


def test_a_metric_that_validation_lacks_is_refused_at_the_start(tmp_path):
    config = small_config(monitor="{metric: val/al, mode: max}", trainer__num_sanity_val_steps=1)
    with refused("monitor.metric", "val/al", "val/all"):
        fit(config, tmp_path)


def test_a_run_from_before_the_modules_moved_goes_on(tmp_path, caplog):
    """Its config.yaml names classes where they were then."""
    old = shutil.copytree(GOLDEN / "run_before_moves", tmp_path / "run")
    assert "ldm.evaluation.judge.Judge" in (old / "config.yaml").read_text()
    weights = fit(load_config(old / "config.yaml", overrides=["trainer.max_steps=6"]), old, resume=True)
    assert read_metadata(old / "checkpoints" / "last" / WEIGHTS)["step"] == "6"
    before = load_file(GOLDEN / "run_before_moves" / "checkpoints" / "last" / WEIGHTS)
    assert load_file(weights).keys() <= before.keys()
    assert_mentions(caplog.text, "ldm.evaluation.judge.Judge", "ldm.toyworld.judge.Judge")


def test_a_run_from_before_goes_on_by_its_own_command(tmp_path):
    """The config given again names the classes where they are now."""
    old = shutil.copytree(GOLDEN / "run_before_moves", tmp_path / "run")
    text = (old / "config.yaml").read_text(encoding="utf-8")
    for before, now in MOVED.items():
        text = text.replace(before, now)
    (tmp_path / "now.yaml").write_text(text, encoding="utf-8")
    fit(load_config(tmp_path / "now.yaml", overrides=["trainer.max_steps=5"]), old, resume=True)
    assert read_metadata(old / "checkpoints" / "last" / WEIGHTS)["step"] == "5"
    with refused("model.params.width", 8, 16):
        changed = ["trainer.max_steps=6", "model.params.width=16"]
        fit(load_config(tmp_path / "now.yaml", overrides=changed), old, resume=True)
