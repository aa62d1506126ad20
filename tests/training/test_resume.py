"""A run that ends before its time goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ldm.checkpoints.io import read_metadata
from ldm.config import ROOT
from ldm.training.checkpoint_folder import TRAINER, WEIGHTS
from ldm.training.fit import fit
from ldm.training.judge import JudgeTraining
from ldm.training.saving import Checkpoints
from ldm.training.signals import Signals
from ldm.utils.errors import UserError
from tests.processes import train_together
from tests.training.small import BASE, overrides, same_files, small_config

STATES = ("optimizer_states", "lr_schedulers", "state_dict")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An uninterrupted run of five steps."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    fit(small_config(), folder)
    return folder


def stop_at(monkeypatch, step, signum=signal.SIGTERM, rank=0):
    """The signal comes while a batch of step `step` (from 0) is computed."""
    original = JudgeTraining.training_step

    def signalled(self, batch, index):
        if self.global_step == step and self.global_rank == rank:
            os.kill(os.getpid(), signum)
        return original(self, batch, index)

    monkeypatch.setattr(JudgeTraining, "training_step", signalled)


def same_trees(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_trees(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_trees, a, b))
    return a == b


def same_runs(a: Path, b: Path) -> bool:
    """Whether two runs ended with the same weights, averages, optimizer and schedule, to the bit."""
    last, other = a / "checkpoints" / "last", b / "checkpoints" / "last"
    states = [torch.load(folder / TRAINER, weights_only=True) for folder in (last, other)]
    return (
        same_files(a / WEIGHTS, b / WEIGHTS)
        and same_files(last / WEIGHTS, other / WEIGHTS)
        and all(same_trees(states[0][key], states[1][key]) for key in STATES)
    )


@pytest.mark.parametrize(
    ("step", "signum"), [(1, signal.SIGTERM), (2, signal.SIGINT), (3, getattr(signal, "SIGUSR1", signal.SIGTERM))]
)
def test_a_signal_saves_and_stops_and_resume_goes_on_bitwise(run, tmp_path, monkeypatch, capsys, step, signum):
    stop_at(monkeypatch, step, signum)
    with pytest.raises(SystemExit) as stopped:
        fit(small_config(), tmp_path)
    monkeypatch.undo()
    assert stopped.value.code == 128 + signum
    said = f"stopped by {signal.Signals(signum).name} after step {step + 1}; go on with --resume"
    assert said in capsys.readouterr().out
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


def test_signals_are_as_before_when_the_run_is_over(run, tmp_path, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop_at(monkeypatch, 0)
    with pytest.raises(SystemExit):
        fit(small_config(), tmp_path)
    assert {number: signal.getsignal(number) for number in before} == before


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
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        fit(small_config(), run)


def test_another_config_is_refused_and_said(run):
    changed = small_config(training__params__optimisation__params__learning_rate=2e-5, ema=0.5)
    with pytest.raises(UserError) as refused:
        fit(changed, run, resume=True)
    assert str(refused.value) == (
        f"--resume: not the config of {run}: ema: 0.99 in the run, 0.5 now; "
        "training.params.optimisation.params.learning_rate: 0.002 in the run, 2e-05 now"
    )
    changed = small_config(data__params__batch_size=8, trainer__gradient_clip_val=1.0, seed=3, model__params__size=8)
    with pytest.raises(UserError, match=r"data.params.batch_size: 4 in the run, 8 now; .*; and \d more$"):
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
    with pytest.raises(UserError, match=f"step 4.*nan.*{tmp_path / 'checkpoints' / 'last'}"):
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
    with pytest.raises(UserError, match="monitor.metric val/al: .*did you mean val/all?"):
        fit(config, tmp_path)


def two_processes(rank: int, folder: Path) -> None:
    options = {"trainer__devices": 2, "trainer__strategy": "ddp"}
    fit(small_config(**options), folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2, rank=1)
        with pytest.raises(SystemExit) as stopped:
            fit(small_config(**options, trainer__log_every_n_steps=2), folder / "cut")
    (folder / f"{rank}.json").write_text(json.dumps(stopped.value.code))
    fit(small_config(**options), folder / "cut", resume=True)


def test_two_processes_stop_together_when_one_is_told_to(tmp_path):
    train_together(two_processes, tmp_path)
    codes = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert codes == [143, 0]  # a launcher would kill the first, which speaks, if the other one failed
    assert same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_script_is_killed_then_told_to_stop_and_ends_as_if_it_had_not_been(tmp_path):
    changes = {"trainer__max_steps": 40, "save_every": 0, "validate_every": 20, "data__params__num_workers": 1}
    folder, last = tmp_path / "cut", tmp_path / "cut" / "checkpoints" / "last" / TRAINER
    command = [sys.executable, "scripts/train.py", "--base", f"configs/{BASE}.yaml", "--logdir", folder, "--resume"]

    def interrupted(signum: int) -> tuple[int, str]:
        def made() -> int:
            return last.stat().st_mtime_ns if last.exists() else 0

        before = made()
        options = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        script = subprocess.Popen([*command, *overrides(**changes)], **options)
        while made() == before and script.poll() is None:
            time.sleep(0.01)
        os.killpg(script.pid, signum)  # as a scheduler does, loading processes included
        return script.wait(60), script.stdout.read()

    assert interrupted(signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = interrupted(signal.SIGTERM)
    assert code == 143 and "stopped by SIGTERM after step" in said
    assert not (folder / WEIGHTS).exists()

    config = small_config(**changes | {"save_every": 5, "data__params__num_workers": 0})
    fit(config, folder, resume=True)
    fit(config, tmp_path / "whole")
    assert same_runs(folder, tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_second_ctrl_c_ends_at_once_but_not_one_passed_on_by_a_launcher(monkeypatch):
    monkeypatch.setattr("ldm.training.signals.TWICE", 0.2)
    child = os.fork()
    if child == 0:
        told = Signals()
        told.listen()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        if told.received != signal.SIGINT:
            os._exit(1)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGINT


def test_several_processes_do_not_wait_for_each_other_in_each_step():
    """They agree every `log_every_n_steps` steps, all on the same."""
    checkpoints = Checkpoints(Path(), None, None, every=0)
    asked = []
    strategy = type("Strategy", (), {"reduce": lambda self, votes, reduce_op: asked.append(reduce_op) or votes})()
    trainer = type("Trainer", (), {"world_size": 2, "log_every_n_steps": 3, "strategy": strategy})
    checkpoints.time, training = time.monotonic(), torch.nn.Module()
    training.device = "cpu"
    found = []
    for checkpoints.step in range(1, 7):
        found.append(checkpoints._agree(trainer, training))
    assert found == [(0, False), (0, False), (0, True)] * 2 and asked == ["max", "max"]
