from unittest.mock import MagicMock

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ldm.training.loop.average import Averages
from ldm.training.loop.panel import Panel
from tests.training.monitored import Line, fit


def steps_of(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def test_a_panel_belongs_to_the_first_validation_after_each_multiple_and_to_the_end(tmp_path):
    folder = tmp_path / "panel"
    fit(Line(), [Panel(6, folder)], tmp_path, steps=18)  # validated after 4, 8, 12, 16 steps
    assert steps_of(folder) == ["step-000008.png", "step-000012.png", "step-000018.png"]


def test_accumulated_batches_are_one_step(tmp_path):
    fit(Line(), [Panel(4, tmp_path / "panel")], tmp_path, steps=9, accumulate=2)
    assert steps_of(tmp_path / "panel") == ["step-000004.png", "step-000008.png", "step-000009.png"]


def test_the_last_step_is_validated_once(tmp_path):
    class Counting(Line):
        validated = []

        def on_validation_epoch_end(self):
            self.validated.append(self.global_step)

    fit(Counting(), [Panel(100, tmp_path / "panel")], tmp_path, steps=10)
    assert Counting.validated == [4, 8, 10] and steps_of(tmp_path / "panel") == ["step-000010.png"]
    Counting.validated.clear()
    fit(Counting(), [Panel(100, tmp_path / "panel")], tmp_path, steps=8)
    assert Counting.validated == [4, 8]


def test_rows_are_the_first_items_and_columns_have_names(tmp_path):
    class Seeing(Line):
        def pictures(self, batch):
            self.seen = batch.tolist()
            self.state = (self.training, torch.is_grad_enabled())
            return super().pictures(batch)

    training = Seeing()
    fit(training, [Panel(4, tmp_path, count=3)], tmp_path, steps=4, validation=5)
    assert training.seen == [-1.0, -0.5, 0.0] and training.state == (False, False) and training.training
    sheet = np.asarray(Image.open(tmp_path / "step-000004.png"))
    below = sheet[-3 * 262 :]  # cells of 256 pixels, 6 between them
    assert [below[i * 262 + 128, 134, 0] for i in range(3)] == [0, 64, 128]
    weight = round((float(training.w.detach()) + 1) * 127.5)
    assert [below[i * 262 + 128, 396, 0] for i in range(3)] == [weight] * 3
    head = sheet[: -3 * 262]
    assert (head[:, :262] < 128).any() and (head[:, 262:] < 128).any()


@pytest.mark.parametrize("first", [True, False])
def test_the_averages_draw_wherever_their_callback_stands(tmp_path, first):
    class Seeing(Line):
        def validation_step(self, batch, batch_index):
            self.validated = float(self.w)

        def pictures(self, batch):
            self.drawn = float(self.w)
            return {}

    training = Seeing()
    callbacks = [Averages(0.5), Panel(4, tmp_path)]
    fit(training, callbacks if first else callbacks[::-1], tmp_path, steps=8)
    raw = 0.5 * (1 - 0.8**8)  # w after 8 steps of 0.1 on the slope 2 (w - 1/2)
    assert float(training.w) == pytest.approx(raw)
    assert training.drawn == training.validated and training.drawn < raw - 0.01


def test_a_panel_changes_nothing_of_the_training(tmp_path):
    weights = []
    for callbacks in ([], [Panel(2, tmp_path / "panel")]):
        training = Line()
        fit(training, callbacks, tmp_path)
        weights.append(float(training.w))
    assert weights[0] == weights[1] and steps_of(tmp_path / "panel")


def test_without_pictures_or_validation_nothing_is_written(tmp_path):
    class Blind(Line):
        def pictures(self, batch):
            return {}

    fit(Blind(), [Panel(2, tmp_path / "panel")], tmp_path)
    fit(Line(), [Panel(2, tmp_path / "panel")], tmp_path, validation=0)
    assert not (tmp_path / "panel").exists()


def test_only_the_first_process_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(pl.Trainer, "is_global_zero", False)
    fit(Line(), [Panel(2, tmp_path / "panel")], tmp_path)
    assert not (tmp_path / "panel").exists()


def test_tensorboard_gets_the_panel(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(Line(), [Panel(4, tmp_path / "panel")], tmp_path, steps=8, logger=logger)
    events = EventAccumulator(str(tmp_path)).Reload()
    images = events.Images("panel")
    assert [image.step for image in images] == [4, 8]
    assert (images[0].width, images[0].height) == Image.open(tmp_path / "panel" / "step-000004.png").size


def test_a_half_written_panel_does_not_take_a_place(tmp_path, monkeypatch):
    def fail(self, file, **_):
        file.write_bytes(b"\x89PNG")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ValueError, match="no space left"):
        fit(Line(), [Panel(4, tmp_path / "panel")], tmp_path)
    assert not steps_of(tmp_path / "panel")


def test_wandb_gets_the_panel(tmp_path):
    experiment = MagicMock()
    fit(Line(), [Panel(4, tmp_path)], tmp_path, steps=4, logger=WandbLogger(experiment=experiment))
    [logged] = [call.args[0] for call in experiment.log.call_args_list if "panel" in call.args[0]]
    [image] = logged["panel"]
    assert logged["trainer/global_step"] == 4 and image.image.size == Image.open(tmp_path / "step-000004.png").size
