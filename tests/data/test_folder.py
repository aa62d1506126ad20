"""A folder of pictures as training data: what is held out, what is left out and what is refused."""

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Subset

from ldm.config import build, load_config
from ldm.data import folder
from ldm.data.folder import folder_data
from ldm.training.loop.fit import fit
from tests.refusals import assert_line, refused


@pytest.fixture
def write(tmp_path):
    """Writes pictures of one colour each, the number of which it is."""

    def write(*names: str, size: tuple[int, int] = (12, 10)) -> str:
        for name in names:
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (len(list(tmp_path.rglob("*.png"))) % 256, 0, 0)).save(path)
        return str(tmp_path / "photos")

    return write


def cut_short(path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def names(data):
    if isinstance(data, Subset):
        return [names(data.dataset)[k] for k in data.indices]
    return [file.name for file in data.files]


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_few_are_held_out_by_their_names_alone(write):
    many = [f"{k % 3}/{k:03d}.png" for k in range(300)]
    root = write(*many)
    data = folder_data(root, 8, 4, validation_share=0.1)
    held = set(names(data.validation))
    assert 15 < len(held) < 45
    assert held | set(names(data.train)) == {name[2:] for name in many} and not held & set(names(data.train))
    assert names(data.train) != sorted(names(data.train))  # sorted by path
    assert names(data.validation) != sorted(held)  # the first few of them are no folder's or time's
    few = folder_data(root, 8, 4, validation_share=0.1, validation_items=7)
    assert names(few.validation) == names(data.validation)[:7]

    shutil.move(root, root + "_moved")
    for name in many[::2]:
        (folder.Path(root + "_moved") / name).unlink()
    smaller = folder_data(root + "_moved", 8, 4, validation_share=0.1)
    assert set(names(smaller.validation)) == held & {name[2:] for name in many[1::2]}
    assert len(folder_data(root + "_moved", 8, 4, validation_share=0.2).validation) > len(smaller.validation)


def test_items_are_squares_and_those_to_train_on_are_mirrored_anew_each_epoch(write, tmp_path):
    root = write("a.png", "b.png")
    half = np.zeros((10, 20, 3), np.uint8)
    half[:, :10] = 255
    for name in ("a.png", "b.png"):
        Image.fromarray(half).save(tmp_path / "photos" / name)
    data = folder_data(root, 8, 1)
    assert (len(data.train), len(data.validation)) == (1, 1)
    views = [data.train[epoch]["image"] for epoch in range(20)]
    assert all(view.shape == (3, 8, 8) and view.min() == -1 and view.max() == 1 for view in views)
    assert {view[0, 0, 0].item() for view in views} == {-1.0, 1.0}
    for k in range(20):
        Image.fromarray(half).save(tmp_path / "photos" / f"{k}.png")
    held = folder_data(root, 8, 1, validation_share=0.5).validation
    assert len(held) > 5 and {held[k]["image"][0, 0, 0].item() for k in range(len(held))} == {1.0}
    still = folder_data(root, 8, 1, flip=False).train
    assert {still[k]["image"][0, 0, 0].item() for k in range(20)} == {1.0}


def test_without_validation(write):
    data = folder_data(write("a.png"), 8, 1, validation_share=0)
    assert (len(data.train), data.validation) == (1, None)
    with refused("validation_share", 1):
        folder_data(write("a.png"), 8, 1, validation_share=1)


def test_files_that_are_no_pictures_are_named_counted_and_left_out(write, tmp_path, caplog):
    root = write("a.png", "b.png", "c.png", "deep/d.PNG", "folder.png/e.png")
    (tmp_path / "photos" / "empty.jpg").write_bytes(b"")
    (tmp_path / "photos" / "text.png").write_text("text")
    (tmp_path / "photos" / "text.txt").write_text("text")
    Image.new("RGB", (4, 30)).save(tmp_path / "photos" / "thin.png")
    with caplog.at_level(logging.WARNING, "ldm"):
        data = folder_data(root, 8, 4)
    assert len(data.train) + len(data.validation) == 6
    first, second, unreadable, small = messages(caplog)
    assert_line(first, f"{root}/empty.jpg")
    assert_line(second, f"{root}/text.png")
    assert_line(unreadable, root, 2, 8)
    assert_line(small, root, 1, 6, 8)
    thin = data.train if "thin.png" in names(data.train) else data.validation
    assert thin[names(thin).index("thin.png")]["image"].shape == (3, 8, 8)


def test_damaged_pictures_are_replaced_when_their_turn_comes(write, tmp_path, caplog):
    root = write("a.png", "b.png", "c.png")
    for name in ("d.png", "e.png", "f.png", "g.png", "h.png"):
        cut_short(tmp_path / "photos" / name)
    data = folder_data(root, 8, 2)  # most of them
    assert not messages(caplog)
    with caplog.at_level(logging.WARNING, "ldm"):
        for part in (data.train, data.validation):
            assert all(part[k % len(part)]["image"].shape == (3, 8, 8) for k in range(20))
    assert len(messages(caplog)) == 5  # each once
    for name, message in zip("defgh", sorted(messages(caplog)), strict=True):
        assert_line(message, f"{name}.png")


def test_what_is_held_out_can_be_read(write, tmp_path):
    """Whichever one of three pictures is whole, it has to be among those to validate on."""
    for whole in ("a.png", "b.png", "c.png"):
        root = write("a.png", "b.png", "c.png")
        for name in {"a.png", "b.png", "c.png"} - {whole}:
            cut_short(tmp_path / "photos" / name)
        files = folder.picture_files(root)
        assert whole in [file.name for file in folder.held_out(files, root, 0.02)]


def test_a_folder_of_which_nothing_can_be_used_is_refused(write, tmp_path):
    with refused(tmp_path / "photos"):
        folder_data(tmp_path / "photos", 8, 1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("text")
    with refused(tmp_path / "photos", ".bmp", ".jpeg", ".jpg", ".png", ".webp"):
        folder_data(tmp_path / "photos", 8, 1)
    (tmp_path / "photos" / "a.png").write_text("text")
    with refused(tmp_path / "photos", 1, tmp_path / "photos/a.png"):
        folder_data(tmp_path / "photos", 8, 1)
    for name in ("a.png", "b.png"):
        cut_short(tmp_path / "photos" / name)
    with refused(tmp_path / "photos", 2, ".png"):
        folder_data(tmp_path / "photos", 8, 1)
    data = folder_data(tmp_path / "photos", 8, 1, validation_share=0)
    with refused("max_unreadable"):
        data.train[0]


def test_a_folder_of_fewer_pictures_than_a_batch_is_refused(write):
    with refused("photos", 2, 1, "validation_share", "batch_size", 4, "data.batch_size=2"):
        folder_data(write("a.png", "b.png", "c.png"), 8, 4)
    with refused(3, "batch_size", 4, "data.batch_size=3"):
        folder_data(write("a.png"), 8, 4, validation_share=0)


def test_a_progress_bar_is_for_many(write, monkeypatch):
    monkeypatch.setattr(folder, "MANY", 2)
    shown = []
    monkeypatch.setattr(folder, "tqdm", lambda files, *_, **options: shown.append(options["disable"]) or files)
    for few in ("a.png", "b.png"), ("c.png",):
        folder_data(write(*few), 8, 1)
    assert shown == [True, None]  # None: where there is a terminal


def test_the_config_reads_it(write):
    root = write("a.png", "b.png", "c.png", size=(70, 70))
    config = load_config("train/ddpm_folder", overrides=[f"data.root={root}", "data.batch_size=2"])
    data = build(config.data)
    assert data.train[0]["image"].shape == (3, 64, 64)
    assert (data.batch_size, len(data.validation)) == (2, 1)


def test_a_training_starts_and_goes_on_with_nothing_but_a_folder(write, tmp_path, recwarn):
    root = write(*(f"{k}.png" for k in range(6)))
    small = ["image_size=8", "unet.model_channels=32", "unet.channel_mult=[1]", "unet.attention_resolutions=[]"]
    common = [f"data.root={root}", "data.batch_size=2", "data.num_workers=0", *(f"model.{item}" for item in small)]
    trainer = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.enable_progress_bar=false"]

    def train(steps: int, *other: str, run: str = "run", resume: bool = False) -> dict:
        overrides = [*common, *trainer, f"trainer.max_steps={steps}", "panel_every=null", *other]
        return load_file(fit(load_config("train/ddpm_folder", overrides=overrides), tmp_path / run, resume))

    first, on = train(1), train(2, resume=True)
    assert any(not torch.equal(first[name], on[name]) for name in first)

    train(2, "data.validation_share=0", "validate_every=1", run="unwatched")
    assert not [warning for warning in recwarn if "Total length" in str(warning.message)]
