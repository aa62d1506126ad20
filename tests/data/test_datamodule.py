"""Lightning sees each epoch's items in an order, and drawn with decisions, that (seed, epoch) alone decide."""

from random import Random

import pytest
import pytorch_lightning as pl
import torch
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
