"""What goes wrong in every package of `ldm`, as cheaply as it can be made to: the cases of test_messages.py.

Each case is a call with a folder, which holds what `prepare` writes and is the working directory.
"""

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

import ldm
from ldm.__main__ import main
from ldm.benchmark.directions import Direction
from ldm.benchmark.layout import read_ids, read_test_bench, result_files
from ldm.checkpoints.gmm import read_gmm
from ldm.checkpoints.io import read_tensors
from ldm.checkpoints.surgery import expand_in_channels
from ldm.compat.configs import load_config
from ldm.config import build, locate
from ldm.data.box_index import open_boxes
from ldm.data.folder import folder_data
from ldm.data.manifest import read_manifest
from ldm.data.open_images_csv import find_splits
from ldm.data.recipe import Recipe
from ldm.evaluation.extractors import open_extractor
from ldm.evaluation.frechet import frechet_distance
from ldm.presets import EditSettings, RePaintSettings
from ldm.runs.jobs import read_jobs
from ldm.runs.outputs import check_writable
from ldm.runs.work import run_jobs
from ldm.training.loop.budget import Budget, check_disk
from ldm.training.loop.check import check
from ldm.training.loop.start import start
from ldm.training.loop.trainer import check_devices, make_trainer
from ldm.utils.cli import note_unused
from ldm.utils.cli import run as run_command
from ldm.utils.errors import report_failures
from ldm.utils.files import read_column
from ldm.utils.image import open_image
from ldm.utils.mask import open_mask
from ldm.utils.png import read_settings
from ldm.utils.processes import this_share
from tests.checkpoints import guided
from tests.compat.test_latent_diffusion import paint_by_example
from tests.editors.test_repaint import hole, picture, pixel_model
from tests.tiny import tiny_model, tiny_text_model
from tests.training.small import small_config
from tests.utils.pictures import mask, photo

UNREADABLE = ("none", "page", "pointer", "empty", "bare", "hostile", "cut", "epoch", "other")


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def prepare(folder: Path) -> None:
    """The files that the cases look at."""
    photo().save(folder / "photo.png")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "float.tif")
    Image.new("L", (48, 32)).save(folder / "black.png")
    mask(24, 16).save(folder / "half.png")
    mask(48, 16).save(folder / "wide.png")
    mask(32, 48).save(folder / "tall.png")
    for name, content in {
        "text.png": "no picture",
        "page.ckpt": "<!DOCTYPE html><html>404</html>",
        "pointer.ckpt": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "empty.ckpt": "",
        "broken.yaml": "a: [",
        "data.yaml": "data: 1\n",
        "edit.yaml": "stepps: 7\n",
        "many.yaml": "steps: many\n",
        "jobs.txt": "a",
        "column.csv": "image,mask,sed\n",
        "none.csv": "image,mask\n",
        "jobs.csv": "image,mask,seed\nphoto.png,black.png,three\nphoto.png,gone.png,\nphoto.png,,\n",
        "metrics.csv": "step,loss\n1,2\n",
        "rows.jsonl": '{"image": "photo.png", "bbox": [1, 2, 3, 4]}\n',
        "bare.jsonl": '{"image": "photo.png"}\n{"image": "gone.png", "box": [1, 2, 9, 9]}\n',
    }.items():
        (folder / name).write_text(content)
    theirs = paint_by_example()
    theirs["model"]["params"]["scale_fctor"] = 1.0
    (folder / "theirs.yaml").write_text(json.dumps(theirs))
    (folder / "bare.ckpt").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"x": Hostile()}, folder / "hostile.ckpt")
    torch.save({"epoch": 3}, folder / "epoch.ckpt")
    torch.save(guided.bare(guided.config()), folder / "guided.pt")
    torch.save({"features.0.weight": torch.ones(1)}, folder / "vgg.pth")
    (folder / "cut.ckpt").write_bytes((folder / "epoch.ckpt").read_bytes()[:200])
    with zipfile.ZipFile(folder / "other.ckpt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    (folder / "photos").mkdir()
    np.save(folder / "ids.npy", np.array([1, 2, 1]))
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text('{"weights": "abc", "batch": 4}')


def command(*words: str) -> Callable:
    """`ldm` with these words, in this process."""

    def call(folder: Path) -> None:
        with patch.object(sys, "argv", ["ldm", *words]):
            main()

    return call


def launched(folder: Path) -> None:
    with patch.dict(os.environ, {"RANK": "3", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}):
        this_share()


def devices(accelerator: str, devices: object, there: int) -> None:
    with patch("torch.cuda.device_count", lambda: there), patch("torch.backends.mps.is_available", lambda: False):
        check_devices(accelerator, devices)


def disk(folder: Path) -> None:
    with patch("shutil.disk_usage", lambda _: SimpleNamespace(free=10**7)):
        check_disk(folder, Budget(0, weights=10**6, checkpoint=10**7), best=True)


def trainer(key: str, value: object, folder: Path) -> None:
    config = small_config()
    config.trainer[key] = value
    make_trainer(config, folder / "logs", [])


def training(folder: Path, **changes: object) -> None:
    config = OmegaConf.merge(small_config(), changes)
    check(config)
    start(config)


def wrong_lines(folder: Path) -> None:
    _, wrong = read_jobs(folder / "jobs.csv", ("image", "mask"), ("seed",))
    report_failures(wrong, "of 3 jobs")


def failing(folder: Path) -> None:
    run_command(lambda: report_failures(["jobs.csv line 2: mask: nothing"], "of 9 jobs"))


def edit(folder: Path, scene: Image.Image | None = None, hole: object = None, exemplar=None, weights=None, **changes):
    editor = ldm.ExemplarEditor(tiny_model(), steps=1)
    editor(scene or photo(), hole or mask(), exemplar or photo(40, 30), weights=weights, **changes)


def fill(model: Callable, folder: Path, mask: Image.Image | None = None, **told: object) -> None:
    ldm.RePaint(model(), steps=4, jump_length=2, jump_n_sample=1)(picture(16, 16), mask or hole(16, 16), **told)


def few(folder: Path) -> None:
    frechet_distance(torch.zeros(3, 5), torch.zeros(3, 5))


CASES: dict[str, dict[str, Callable[[Path], object]]] = {
    "config": {
        "missing": lambda folder: load_config("no_such_config"),
        "not YAML": lambda folder: load_config(folder / "broken.yaml"),
        "unknown key": lambda folder: load_config("v1", overrides=["model.params.scale_fctor=1"]),
        "override not YAML": lambda folder: load_config("v1", overrides=["seed=["]),
        "unknown target": lambda folder: locate("ldm.diffusion.schedule.Schedul"),
        "unknown parameter": lambda folder: build({"target": "ldm.models.clip_image.Mapper", "params": {"witdh": 8}}),
        "no model": lambda folder: ldm.load(folder / "data.yaml"),
        "the original's": lambda folder: load_config(folder / "theirs.yaml"),
        "unknown settings": lambda folder: EditSettings.read("theirs"),
        "unknown key of settings": lambda folder: EditSettings.read(folder / "edit.yaml"),
        "wrong value of settings": lambda folder: EditSettings.read(folder / "many.yaml"),
        "eta without ddim": lambda folder: RePaintSettings.read("fast", sampler="ddpm", eta=1.0),
        "seed of the last sample": lambda folder: EditSettings.read(seed=2**63 - 1, n_samples=2),
    },
    "checkpoint": {
        **{f"{name}.ckpt": lambda folder, name=name: read_tensors(folder / f"{name}.ckpt") for name in UNREADABLE},
        "other options": lambda folder: ldm.load(guided.config(num_classes=5), folder / "guided.pt"),
        "of something else": lambda folder: ldm.load(guided.config(), folder / "vgg.pth"),
        "no weights": lambda folder: ldm.load(guided.config()),
        "no UNet": lambda folder: expand_in_channels({"weight": torch.ones(1)}, 9, "vgg.pth"),
        "no GMM": lambda folder: read_gmm(folder / "page.ckpt"),
    },
    "picture": {
        "missing": lambda folder: open_image(folder / "none.png"),
        "a folder": lambda folder: open_image(folder / "photos"),
        "no picture": lambda folder: open_image(folder / "text.png"),
        "floating point": lambda folder: open_image(folder / "float.tif"),
        "no settings": lambda folder: read_settings(folder / "photo.png"),
    },
    "mask": {
        "empty": lambda folder: open_mask(folder / "black.png", (48, 32)),
        "resized": lambda folder: open_mask(folder / "half.png", (48, 32)),
        "another shape": lambda folder: open_mask(folder / "wide.png", (48, 32)),
        "transposed": lambda folder: open_mask(folder / "tall.png", (48, 32)),
    },
    "flags": {
        "unknown verb": command("pait"),
        "unknown flag": command("edit", "--colour", "3"),
        "required": command("edit"),
        "one of two": command("txt2img"),
        "not with jobs": command("edit", "--jobs", "jobs.csv", "--image_path", "photo.png"),
        "no box": command("edit", "--box", "1,2,3"),
        "below 1": command("sample", "--batch", "0"),
        "of no use": lambda folder: note_unused(["--C", "--f"]),
        "no training": command("train"),
        "never scaled": command("train", "-b", "v1", "--scale_lr", "true"),
        "output folder": lambda folder: check_writable(folder / "text.png"),
        "a launcher's": launched,
    },
    "jobs": {
        "no list": lambda folder: read_jobs(folder / "gone.csv", ("image",), ()),
        "another kind": lambda folder: read_jobs(folder / "jobs.txt", ("image",), ()),
        "unknown column": lambda folder: read_jobs(folder / "column.csv", ("image", "mask"), ("seed",)),
        "empty": lambda folder: read_jobs(folder / "none.csv", ("image", "mask"), ("seed",)),
        "wrong lines": lambda folder: report_failures(
            read_jobs(folder / "jobs.csv", ("image", "mask"), ("seed",))[1], "of 3"
        ),
        "another run": lambda folder: run_jobs([], folder / "run", {"weights": "xyz"}, None, batch=4),
        "some failed": failing,
    },
    "training": {
        "unknown key of the trainer": partial(trainer, "max_step", 5),
        "key said elsewhere": partial(trainer, "max_epochs", 5),
        "unknown key": partial(training, monitr=1),
        "no file": partial(training, pretrained_model="none.ckpt"),
        "clip alone": partial(training, clip="photo.png"),
        "decay": partial(training, ema=1.5),
        "devices": lambda folder: devices("auto", 8, there=1),
        "no GPU": lambda folder: devices("gpu", 1, there=0),
        "disk": disk,
    },
    "data": {
        "no folder": lambda folder: folder_data(folder / "none", 8, 1),
        "no pictures": lambda folder: folder_data(folder / "photos", 8, 1),
        "unknown column": lambda folder: read_manifest(folder / "rows.jsonl", "hole"),
        "no usable row": lambda folder: read_manifest(folder / "bare.jsonl", "hole"),
        "no manifest": lambda folder: read_manifest(folder / "none.jsonl", "hole"),
        "no boxes": lambda folder: open_boxes(folder, "train"),
        "no annotations": lambda folder: find_splits(folder),
        "a share": lambda folder: Recipe(arbitrary_mask_percent=50),
        "no column": lambda folder: read_column(folder / "metrics.csv", "val/loss"),
    },
    "benchmark": {
        "no benchmark": command("benchmark", "--config", "toyworld"),
        "no test bench": lambda folder: read_test_bench(folder / "none"),
        "ids twice": lambda folder: read_ids(folder / "ids.npy"),
        "missing results": lambda folder: result_files(folder / "photos", ["000000000001"]),
        "unknown extractor": lambda folder: open_extractor("clip"),
        "missing weights": lambda folder: open_extractor("inception", folder / "none.pth"),
        "another network": lambda folder: open_extractor("inception", folder / "vgg.pth"),
        "direction": lambda folder: Direction("x", "a", "b", {"fid": "sinks"}),
        "too few": few,
    },
    "editors": {
        "unknown sampler": partial(edit, sampler="euler"),
        "too many steps": partial(edit, steps=1001),
        "weights": partial(edit, weights=[1, 2]),
        "large picture": lambda folder: edit(folder, photo(200, 16), mask(200, 16)),
        "another model": lambda folder: ldm.TextToImage(tiny_model()),
        "unknown word": lambda folder: ldm.TextToImage(tiny_text_model(), steps=1)("a green ball"),
        "no target": lambda folder: ldm.DiffEdit(tiny_text_model(), steps=1)(photo(16, 16), " "),
        "same prompts": lambda folder: ldm.DiffEdit(tiny_text_model(), steps=1)(photo(16, 16), "a mug", "a mug"),
        "no classes": partial(fill, pixel_model, class_id=1),
        "a class": partial(fill, partial(pixel_model, num_classes=5)),
        "no prompt taken": partial(fill, pixel_model, prompt="a red ball"),
        "nothing known": partial(fill, pixel_model, mask=Image.new("L", (16, 16), 255)),
        "a latent model": lambda folder: ldm.PixelSampler(tiny_text_model()),
    },
}
