"""Lightning sees, in every step, the items that (seed, step) alone decide."""

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from ldm.data.datamodule import DataModule, ShareSampler, StepSampler
from ldm.data.images import Epochs
from ldm.utils.random import generator
from tests.processes import train_together
from tests.refusals import refused


class Numbers(Epochs, Dataset):
    """Items {"index", "draw"}, the draw anew each epoch."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict:
        return {"index": index % 11, "draw": self.random(index).getrandbits(60)}


class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen += zip(batch["index"].tolist(), batch["draw"].tolist(), strict=True)
        return self.weight**2

    def validation_step(self, batch, _):
        self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder: Path, steps: int, workers: int = 0, checkpoint: Path | None = None, **options: object) -> Recorder:
    """Train with batches of 4, two batches an epoch, and save the end as <steps>.ckpt."""
    recorder = Recorder()
    data = DataModule(Numbers(1), 4, validation=Numbers(1), num_workers=workers, seed=2, batch_per_device=2)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder, use_distributed_sampler=False,
        **options,
    )  # fmt: skip
    trainer.accumulate_grad_batches = data.divide(trainer.world_size)
    trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return recorder


def expected(steps: int) -> list[tuple[int, int]]:
    items = []
    for epoch in range(-(-steps // 2)):
        order = torch.randperm(11, generator=generator(2, "order", epoch)).tolist()
        items += [(i, Numbers(1)[epoch * 11 + i]["draw"]) for i in order[:8]]
    return items[: 4 * steps]


def test_fit_sees_the_same_with_workers_and_after_a_resume(tmp_path):
    whole = fit(tmp_path, 5).seen
    assert whole == expected(5)
    assert fit(tmp_path, 5, workers=2).seen == whole
    assert fit(tmp_path, 3).seen == whole[:12]
    assert fit(tmp_path, 5, checkpoint=tmp_path / "3.ckpt").seen == whole[12:]


def train_as_one_of_two(rank: int, folder: Path) -> None:
    for number, (steps, checkpoint) in enumerate(((5, None), (3, None), (5, folder / "3.ckpt"))):
        recorder = fit(folder, steps, checkpoint=checkpoint, devices=2, strategy="ddp")
        (folder / f"{number}-{rank}.json").write_text(json.dumps(recorder.seen))


def test_two_processes_share_the_batches_of_one(tmp_path):
    train_together(train_as_one_of_two, tmp_path)
    runs = [[json.loads((tmp_path / f"{number}-{rank}.json").read_text()) for rank in (0, 1)] for number in range(3)]
    for (first, second), items in zip(runs, (expected(5), expected(3), expected(5)[12:]), strict=True):
        assert [tuple(item) for pair in zip(first, second, strict=True) for item in pair] == items
    assert fit(tmp_path, 5, checkpoint=tmp_path / "3.ckpt").seen == expected(5)[12:]  # one goes on where two stopped


def test_an_epoch_has_every_item_once_in_an_order_of_its_own():
    data = list(range(50))

    def order(seed: int, epoch: int) -> list[int]:
        return list(StepSampler(data, 10, seed, epoch * 5, epoch * 5 + 5, rank=0, replicas=1))

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == data for o in orders)
    assert len({tuple(o) for o in orders}) == 4 and order(0, 1) == orders[1]


def test_ranks_validate_equal_shares_of_everything():
    shares = [list(ShareSampler(Numbers(1), rank, replicas=3)) for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert [k for row in zip(*shares, strict=True) for k in row] == [*range(11), 0]


def test_random_decisions_are_python_random_of_the_key():
    a, b = Numbers(1), Numbers(1)
    assert isinstance(a.random(3), Random) and a.random(3).random() == b.random(3).random()
    assert len({a.random(i).random() for i in range(100)}) == 100  # nine epochs of eleven items


@pytest.mark.parametrize(
    ("batch", "at_once", "devices", "accumulated", "loaded"),
    [(8, None, 1, 1, 8), (8, None, 4, 1, 2), (8, 2, 1, 4, 2), (8, 2, 2, 2, 2), (8, 16, 2, 1, 4)],
)
def test_a_batch_is_divided_among_devices_and_in_time(batch, at_once, devices, accumulated, loaded):
    data = DataModule(Numbers(1), batch, at_once)
    assert (data.divide(devices), data.loaded_at_once) == (accumulated, loaded)


def test_a_batch_that_does_not_fit_is_refused():
    for size in (12, 0):
        with refused("batch_size", size, 1, 11):
            DataModule(Numbers(1), batch_size=size)
    with refused("batch_per_device", 0):
        DataModule(Numbers(1), 8, batch_per_device=0)
    with refused("batch_size", 8, 3):
        DataModule(Numbers(1), 8).divide(3)
    with refused(2, 4, "batch_per_device", 3):
        DataModule(Numbers(1), 8, batch_per_device=3).divide(2)


def test_without_validation_there_is_no_loader():
    data = DataModule(Numbers(1), 4)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1)
    assert data.val_dataloader() == [] and data.steps_per_epoch == 2
