"""Models of pictures and a classifier as files, for the tests of scripts."""

from pathlib import Path

from omegaconf import OmegaConf

from ldm.checkpoints.io import save_tensors
from tests.checkpoints.guided import bare, classifier, config

MODELS = {
    "pixel": config(),
    "classes": config(num_classes=5),
    "ten": config(num_classes=10),
    "classifier": classifier(),
    "other": classifier(num_classes=7),
    "plain": config(out_channels=3),
}
"""Of 16 x 16 pixels; `plain` says no variance; `classes`, `ten` and the classifiers know 5, 10, 5 and 7 classes."""


def write_models(folder: Path) -> Path:
    """A config `<name>.yaml` and guided-diffusion's file `<name>.safetensors` for each of `MODELS`."""
    for name, model in MODELS.items():
        OmegaConf.save(model, folder / f"{name}.yaml")
        save_tensors(folder / f"{name}.safetensors", bare(model))
    return folder
