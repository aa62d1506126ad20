"""Runs that are told to stop, alone or together: signals, processes, and that all ends as if they had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ldm.training.loop.checkpoint_folder import WEIGHTS
from ldm.training.loop.fit import fit
from ldm.training.loop.saving import Checkpoints
from ldm.training.loop.signals import Signals
from ldm.utils.project import ROOT
from tests.killed import killed_at
from tests.processes import HANGS, train_together
from tests.refusals import assert_mentions
from tests.training.small import BASE, overrides, same_runs, small_config, stop_at


def test_signals_are_as_before_when_the_run_is_over(tmp_path, monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop_at(monkeypatch, 0)
    with pytest.raises(SystemExit):
        fit(small_config(), tmp_path)
    assert {number: signal.getsignal(number) for number in before} == before


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
    folder, last = tmp_path / "cut", tmp_path / "cut" / "checkpoints" / "last"
    flags = ["--base", BASE, "--logdir", folder, "--resume", *overrides(**changes)]

    def interrupted(signum: int) -> tuple[int, str]:
        """As a scheduler does it, loading processes included, when a second checkpoint takes the first one's place."""
        command = killed_at(signum, str(last), 2, "train", *flags)
        options = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        done = subprocess.run(command, **options, timeout=HANGS)
        return done.returncode, done.stderr

    assert interrupted(signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = interrupted(signal.SIGTERM)
    assert code == 143
    assert_mentions(said, "SIGTERM")
    assert not (folder / WEIGHTS).exists()

    config = small_config(**changes | {"save_every": 5, "data__params__num_workers": 0})
    fit(config, folder, resume=True)
    fit(config, tmp_path / "whole")
    assert same_runs(folder, tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_second_ctrl_c_ends_at_once_but_not_one_passed_on_by_a_launcher(monkeypatch):
    monkeypatch.setattr("ldm.training.loop.signals.TWICE", 0.2)
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
