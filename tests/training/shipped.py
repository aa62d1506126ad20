"""The trainings that ship, a few steps long on a few drawn scenes; conftest.py has what they start from."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from ldm.config import load_config

SMALL = ("data.params.batch_size=4", "validate_every=2", "trainer.limit_val_batches=1")


def settings(name: str, steps: int, *overrides: str) -> DictConfig:
    common = ["trainer.precision=32-true", f"trainer.max_steps={steps}", "trainer.enable_progress_bar=false",
              "trainer.num_sanity_val_steps=0"]  # fmt: skip
    return load_config(f"train/toyworld_{name}", overrides=[*common, *SMALL, *overrides])


def autoencoder_config(toyworld: Path, steps: int) -> DictConfig:
    pictures = (f"data.params.{part}.params.root={toyworld}/images" for part in ("train", "validation"))
    return settings("autoencoder", steps, *pictures)


def clip_config(toyworld: Path, steps: int) -> DictConfig:
    return settings("clip", steps, *(f"data.params.{part}.params.root={toyworld}" for part in ("train", "validation")))


def exemplar_config(toyworld: Path, frozen: Sequence[Path], cache: Path, steps: int) -> DictConfig:
    """From random weights: a `pretrained_model` is for the test to name."""
    return settings(
        "exemplar",
        steps,
        "pretrained_model=null",
        f"frozen=[{','.join(map(str, frozen))}]",
        f"source.params.root={toyworld}",
        f"data.params.train.params.folder={cache}",
        f"data.params.validation.params.root={toyworld}",
    )


def text_config(frozen: Sequence[Path], cache: Path, steps: int) -> DictConfig:
    return settings(
        "text",
        steps,
        f"frozen=[{','.join(map(str, frozen))}]",
        "source.params.length=12",
        f"data.params.train.params.folder={cache}",
        "data.params.validation.params.length=12",
        "training.params.panel_steps=2",
    )
