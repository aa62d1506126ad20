import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ldm.training.loop.loggers import CsvLogger, make_loggers
from ldm.training.loop.progress import TrainingProgress
from tests.processes import HANGS
from tests.refusals import refused
from tests.training.monitored import Line, fit

CONFIG = {"seed": 3, "model": {"channels": [1, 2]}}


def table(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_new_metric_is_a_new_column(tmp_path):
    logger = CsvLogger(tmp_path / "csv" / "metrics.csv")
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=50)
    logger.log_metrics({"val/loss": 0.4}, step=50)
    logger.log_metrics({"train/loss": 0.3}, step=100)
    assert (tmp_path / "csv" / "metrics.csv").read_text().split() == [
        "step,train/loss,val/loss",
        "50,0.5,",
        "50,,0.4",
        "100,0.3,",
    ]


def test_a_resumed_training_goes_on_in_the_table_without_the_steps_it_makes_again(tmp_path):
    file = tmp_path / "metrics.csv"
    logger = CsvLogger(file)
    for step in (50, 100, 150):
        logger.log_metrics({"train/loss": step / 100, "val/loss": 1.0}, step=step)
    resumed = CsvLogger(file)
    for step in (100, 150, 200):
        resumed.log_metrics({"train/loss": step / 1000, "lr": 1.0}, step=step)
    rows = table(file)
    assert [row["step"] for row in rows] == ["50", "100", "150", "200"]
    assert [row["train/loss"] for row in rows] == ["0.5", "0.1", "0.15", "0.2"]
    assert rows[0]["val/loss"] == "1.0" and rows[0]["lr"] == ""


def test_a_training_writes_its_steps_under_their_number(tmp_path):
    loggers = make_loggers(tmp_path, None, CONFIG)
    fit(Line(), [TrainingProgress(show=False)], tmp_path, steps=10, logger=loggers)
    rows = table(tmp_path / "csv" / "metrics.csv")
    trained = [row for row in rows if row["train/loss"]]
    assert [row["step"] for row in trained] == ["2", "4", "6", "8", "10"]
    assert [row["step"] for row in rows if row["val/loss"]] == ["4", "8"]
    for number, row in enumerate(trained):  # the loss before each logged step: (w - 1/2)^2 with w = (1 - 0.8^n) / 2
        assert float(row["train/loss"]) == pytest.approx(0.25 * 0.8 ** (2 * (2 * number + 1)), rel=1e-4)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6, 8, 10]
    assert [event.step for event in events.Scalars("val/loss")] == [4, 8]


def test_tensorboard_shows_the_config_once(tmp_path):
    for _ in range(2):
        for logger in make_loggers(tmp_path, None, CONFIG):
            logger.save()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    [config] = events.Tensors("config/text_summary")
    assert "    seed: 3\n" in config.tensor_proto.string_val[0].decode()


OFFLINE = """
import sys
import time
from pathlib import Path
from ldm.training.loop.loggers import make_loggers
assert "wandb" not in sys.modules
config = {"seed": 3, "model": {"channels": [1, 2]}}
make_loggers(Path("none"), None, config)
assert "wandb" not in sys.modules
for step in (1, 2):
    logger = make_loggers(Path("run"), "project", config)[-1]
    logger.log_metrics({"train/loss": 0.5}, step=step)
    print("run", logger.experiment.id, dict(logger.experiment.config), flush=True)
    logger.experiment.finish()
    time.sleep(1.1)  # wandb names its folders by the second
"""


def test_wandb_works_offline_and_a_resumed_run_is_the_same_run(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    unreachable = "http://127.0.0.1:9"  # nothing may ask for it
    environment = os.environ | {"WANDB_MODE": "offline", "HOME": str(home), "WANDB_BASE_URL": unreachable}
    command = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    first, second = [line for line in done.stdout.splitlines() if line.startswith("run ")]
    assert first == second and "{'seed': 3, 'model': {'channels': [1, 2]}}" in first
    assert len(list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{first.split()[1]}"))) == 2
    outside = [path for path in home.rglob("*.wandb")]
    assert not outside and sorted(path.name for path in tmp_path.iterdir()) == ["home", "none", "run"]


def test_without_a_login_wandb_answers_in_one_line(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with refused("wandb", "project", "WANDB_MODE=offline"):
        make_loggers(tmp_path / "run", "project", CONFIG)
