import io

import pytest
import pytorch_lightning as pl

from ldm.training.loop import progress
from ldm.training.loop.guard import Guard
from ldm.training.loop.loggers import CsvLogger
from ldm.training.loop.progress import TrainingProgress
from ldm.training.loop.saving import Seeded
from tests.training.loop.test_loggers import table
from tests.training.monitored import Items, Line, fit


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Timed(Line):
    """Steps of 3 seconds, validations of 1000."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def training_step(self, batch, batch_index):
        self.clock.now += 3
        return super().training_step(batch, batch_index)

    def on_validation_epoch_start(self):
        self.clock.now += 1000


class SlowItems(Items):
    """The loader takes a second a batch."""

    clock = None

    def train_dataloader(self):
        loader = super().train_dataloader()
        collate = loader.collate_fn

        def slow(items):
            self.clock.now += 1
            return collate(items)

        loader.collate_fn = slow
        return loader


class Saving(pl.callbacks.Checkpoint):
    """Lightning puts such callbacks last, and this one takes 6 seconds a step."""

    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_end(self, *_):
        self.clock.now += 6


def run(
    tmp_path, monkeypatch, clock, others=(), terminal=False, show=True, steps=8, **options
) -> tuple[str, list[dict]]:
    """What is shown on stderr and what is logged."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("tests.training.monitored.Items", SlowItems)
    monkeypatch.setattr(SlowItems, "clock", clock)
    file = tmp_path / "metrics.csv"
    options["logger"] = CsvLogger(file)
    fit(Timed(clock), [TrainingProgress(show), *others], tmp_path, steps=steps, **options)
    return stream.getvalue(), [row for row in table(file) if row["train/data_wait"]]


def test_speed_and_waiting_are_those_of_the_training_alone(tmp_path, monkeypatch, clock):
    _, rows = run(tmp_path, monkeypatch, clock)
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    for row in rows:  # 2 steps of 2 items in 2 * (3 + 1) seconds, whatever the validation after step 4 took
        assert float(row["train/samples_per_second"]) == pytest.approx(4 / 8)
        assert float(row["train/data_wait"]) == pytest.approx(2 / 8)
        assert float(row["train/lr"]) == pytest.approx(0.1)


def test_accumulated_batches_are_one_step_of_all_their_samples(tmp_path, monkeypatch, clock):
    _, rows = run(tmp_path, monkeypatch, clock, accumulate=3)
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    for row in rows:  # 2 steps of 3 batches of 2 items in 2 * 3 * (3 + 1) seconds
        assert float(row["train/samples_per_second"]) == pytest.approx(12 / 24)
        assert float(row["train/data_wait"]) == pytest.approx(1 / 4)


def test_saving_is_time_but_no_waiting_for_data(tmp_path, monkeypatch, clock):
    _, rows = run(tmp_path, monkeypatch, clock, others=[Saving(clock)], enable_checkpointing=True)
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    for row in rows:
        assert float(row["train/samples_per_second"]) == pytest.approx(4 / 20)
        assert float(row["train/data_wait"]) == pytest.approx(2 / 20)


def test_a_log_file_gets_a_line_a_minute(tmp_path, monkeypatch, clock):
    text, _ = run(tmp_path, monkeypatch, clock, steps=50, validation=0)
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == ["step 2 of 50", "step 18 of 50", "step 34 of 50", "step 50 of 50"]
    assert lines[1].endswith("lr 0.1, samples/s 0.5, data wait 25%, 02:08 left")  # 32 steps of 4 seconds
    assert "\r" not in text and "Epoch" not in text


def test_a_validation_is_one_line(tmp_path, monkeypatch, clock):
    text, _ = run(tmp_path, monkeypatch, clock)
    lines = [line for line in text.splitlines() if "val/" in line]
    assert [line.split(":")[0] for line in lines] == ["step 4", "step 8"]
    weight = 0.5 * (1 - 0.8**4)
    expected = sum((weight - item) ** 2 for item in (-1, 0, 1)) / 3
    assert float(lines[0].split("val/loss ")[1]) == pytest.approx(expected, rel=1e-3)


def test_a_terminal_gets_one_bar_over_the_steps(tmp_path, monkeypatch, clock):
    text, _ = run(tmp_path, monkeypatch, clock, terminal=True, accumulate=2)
    last = text.replace("\n", "\r").rstrip("\r").split("\r")[-1]
    assert "8/8" in last and "samples/s=0.5" in last and "data wait=25%" in last
    assert "loss=" in last and "lr=0.1" in last
    assert "Epoch" not in text and "step 4: val/loss" in text


def test_a_hidden_bar_shows_nothing_and_logs_all_the_same(tmp_path, monkeypatch, clock):
    text, rows = run(tmp_path, monkeypatch, clock, show=False, terminal=True)
    assert not text and len(rows) == 4


def test_other_processes_show_nothing(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    text, _ = run(tmp_path, monkeypatch, clock)
    assert not text


def test_a_resumed_bar_begins_where_the_run_had_come_to(tmp_path, monkeypatch, clock):
    trainer = fit(Line(), [TrainingProgress(False)], tmp_path, steps=4)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    last = str(tmp_path / "last.ckpt")
    text, rows = run(tmp_path, monkeypatch, clock, [Seeded()], terminal=True, steps=10, ckpt_path=last)
    assert "| 4/10 [" in text and "| 10/10 [" in text and "| 0/10" not in text
    assert [row["step"] for row in rows] == ["6", "8", "10"]
    assert [float(row["train/samples_per_second"]) for row in rows] == [0.5] * 3


def test_steps_between_two_looks_wait_for_nothing(tmp_path, monkeypatch):
    """The loss is read every `log_every_n_steps` steps and at the end."""
    taken = []
    take = progress.StepLosses.take
    monkeypatch.setattr(progress.StepLosses, "take", lambda self: (taken.append(self.step), take(self))[1])
    fit(Line(), [TrainingProgress(False), Guard(tmp_path)], tmp_path, steps=12, validation=0, log_every_n_steps=5)
    assert taken == [5, 5, 10, 10, 12]  # TrainingProgress and Guard each, and the guard's last check


def test_the_first_wait_is_counted(tmp_path, clock):
    bar = TrainingProgress(False)
    trainer = type("T", (), {"max_steps": 3, "global_step": 0})()
    bar.on_train_start(trainer)
    clock.now += 5
    bar.on_train_batch_start()
    assert bar.waited == 5
