"""Lightning sees each epoch's items in an order, and drawn with decisions, that (seed, epoch) alone decide."""

import json
import os
import socket
from pathlib import Path
from random import Random

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch.utils.data import Dataset

from ldm.data.datamodule import DataModule, EpochSampler
from ldm.data.images import Epochs
from ldm.utils.errors import UserError


class Numbers(Epochs, Dataset):
    """Items {"index", "draw"}, the draw anew each epoch."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict:
        return {"index": index, "draw": self.random(index).getrandbits(60)}


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


def fit(folder, epochs: int, workers: int, checkpoint=None, seed: int = 2) -> Recorder:
    recorder = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    data = DataModule(Numbers(1), batch_size=3, validation=Numbers(1), num_workers=workers, seed=seed)
    trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return recorder


@pytest.mark.filterwarnings("ignore")
def test_fit_sees_the_same_with_workers_and_after_a_resume(tmp_path):
    whole = fit(tmp_path, 2, workers=0)
    assert len(whole.seen) == 18  # 3 full batches of 3 an epoch
    epochs = [whole.seen[k : k + 9] for k in (0, 9)]
    for number, epoch in enumerate(epochs):
        sampler = EpochSampler(Numbers(1), 2)
        sampler.set_epoch(number)
        assert [index for index, _ in epoch] == list(sampler)[:9]
        expected = Numbers(1)
        expected.set_epoch(number)
        assert [draw for _, draw in epoch] == [expected[index]["draw"] for index, _ in epoch]
    assert whole.validated == list(range(11)) * 2
    assert fit(tmp_path, 2, workers=2).seen == whole.seen
    assert fit(tmp_path, 1, workers=0).seen == epochs[0]
    assert fit(tmp_path, 2, workers=0, checkpoint=tmp_path / "1.ckpt").seen == epochs[1]


def test_processes_share_an_epoch_evenly_and_skip_their_own_share():
    whole = list(EpochSampler(Numbers(1), 2))
    for rank in (0, 1):
        sampler = EpochSampler(Numbers(1), 2, rank, replicas=2)
        assert list(sampler) == whole[rank:10:2] and len(sampler) == 5
        sampler.skip = 3
        assert list(sampler) == whole[rank:10:2][3:]
        assert list(sampler) == whole[rank:10:2]


def train_as_one_of_two(rank: int, folder: Path, port: int) -> None:
    """In a process of its own: 5 steps of one batch of 2 items, once straight and once cut after the third."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    seen = []
    for steps, checkpoint in ((5, None), (3, None), (5, folder / "3.ckpt")):
        recorder = Recorder()
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False, logger=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
            callbacks=[LastStep(folder / f"{steps}.ckpt")],
        )  # fmt: skip
        data = DataModule(Numbers(1), batch_size=2, seed=2)
        trainer.fit(recorder, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        seen.append([index for index, _ in recorder.seen])
    (folder / f"{rank}.json").write_text(json.dumps(seen))


class LastStep(Checkpoint):
    def __init__(self, path: Path):
        self.path = path

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.path)


def test_two_processes_train_on_different_items_and_resume_amid_an_epoch(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(train_as_one_of_two, (tmp_path, port), nprocs=2)
    for rank in (0, 1):
        whole, cut, resumed = json.loads((tmp_path / f"{rank}.json").read_text())
        orders = []
        for epoch in (0, 1, 2):  # 2 steps an epoch
            sampler = EpochSampler(Numbers(1), 2, rank, replicas=2)
            sampler.set_epoch(epoch)
            orders += list(sampler)[:4]
        assert whole == orders[:10] and cut == orders[:6] and resumed == orders[6:10]


def test_orders_differ_between_epochs_and_seeds():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(list(range(50)), seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4 and order(0, 1) == orders[1]


def test_random_decisions_are_python_random_of_the_key():
    a, b = Numbers(1), Numbers(1)
    assert isinstance(a.random(3), Random) and a.random(3).random() == b.random(3).random()
    assert len({a.random(i).random() for i in range(100)}) == 100


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="batch_size 12: the training data has 11 items only"):
        DataModule(Numbers(1), batch_size=12)
