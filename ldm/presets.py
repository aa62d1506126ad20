"""Settings of the editors from `configs/`: the only place their defaults come from."""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from torch import nn

from ldm.config import load_config
from ldm.editors.diffedit import DiffEdit
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.pixel_sampling import PixelSampler
from ldm.editors.repaint import RePaint
from ldm.editors.settings import (
    STOCHASTIC,
    DiffEditSettings,
    EditSettings,
    PixelSampling,
    RePaintSettings,
    Sampling,
    Settings,
)
from ldm.editors.text_to_image import TextToImage
from ldm.utils.errors import UserError
from ldm.utils.project import CONFIGS

S = TypeVar("S", bound=Settings)


def settings_from(
    kind: type[S], folder: str, name: str | Path = "default", below: Mapping[str, Any] | None = None, **changes: Any
) -> S:
    """The settings of `configs/<folder>/<name>.yaml`, or of a file of your own, with some changed.

    What the file does not say is as in `default`. Its `steps` may be a number for each sampler, and its `eta` is that
    of its own sampler: to another one that takes none it does not apply.

    Args:
        below: beats `default`, and is beaten by another file.

    Raises:
        UserError: no such file, an unknown key or a wrong value.
    """
    shipped = {file.stem: file for file in sorted((CONFIGS / folder).glob("*.yaml"))}
    file = shipped.get(str(name), Path(name))
    if not os.path.isfile(file):  # a Path of too long a name would raise
        raise UserError(f"{folder} settings {name}: neither a file nor one of {', '.join(shipped)}")
    config = load_config(shipped["default"], file)
    own = {} if file == shipped["default"] else load_config(file)
    below = {key: value for key, value in (below or {}).items() if key not in own}
    preset = {**OmegaConf.to_container(config, resolve=True), **below}
    values = {**preset, **changes}
    if "sampler" in changes and "eta" not in changes and values["sampler"] not in (preset["sampler"], STOCHASTIC):
        values["eta"] = 0.0
    if isinstance(values["steps"], dict):
        values["steps"] = values["steps"].get(values["sampler"], 0)  # an unknown sampler is refused below
    known = [field.name for field in fields(kind)]
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"{folder} settings {name}: unknown key {unknown[0]!r} (there are {', '.join(known)})")
    return kind(**values)


def edit_settings(name: str | Path = "default", **changes: Any) -> EditSettings:
    """How to edit by example: `configs/edit/<name>.yaml`, see `settings_from`."""
    return settings_from(EditSettings, "edit", name, **changes)


def diffedit_settings(name: str | Path = "default", **changes: Any) -> DiffEditSettings:
    """How to edit by DiffEdit: `configs/diffedit/<name>.yaml`, see `settings_from`."""
    return settings_from(DiffEditSettings, "diffedit", name, **changes)


def txt2img_settings(name: str | Path = "default", **changes: Any) -> Sampling:
    """How to make a picture from a prompt: `configs/txt2img/<name>.yaml`, see `settings_from`."""
    return settings_from(Sampling, "txt2img", name, **changes)


def repaint_settings(
    name: str | Path = "default", below: Mapping[str, Any] | None = None, **changes: Any
) -> RePaintSettings:
    """How to fill holes: `configs/repaint/<name>.yaml`, see `settings_from`."""
    return settings_from(RePaintSettings, "repaint", name, below, **changes)


def pixel_settings(
    name: str | Path = "default", below: Mapping[str, Any] | None = None, **changes: Any
) -> PixelSampling:
    """How to sample a model of pictures: `configs/sample/<name>.yaml`, see `settings_from`."""
    return settings_from(PixelSampling, "sample", name, below, **changes)


def exemplar_editor(model: nn.Module, edit: str | Path = "default", **changes: Any) -> ExemplarEditor:
    """The editor of a model, with the settings of `configs/edit/<edit>.yaml` where a call says nothing else."""
    return ExemplarEditor(model, edit_settings(edit, **changes))


def diffedit_editor(model: nn.Module, edit: str | Path = "default", **changes: Any) -> DiffEdit:
    """DiffEdit with a text-to-image model, and the settings of `configs/diffedit/<edit>.yaml`."""
    return DiffEdit(model, diffedit_settings(edit, **changes))


def text_to_image(model: nn.Module, name: str | Path = "default", **changes: Any) -> TextToImage:
    """A text-to-image model with the settings of `configs/txt2img/<name>.yaml` where a call says nothing else."""
    return TextToImage(model, txt2img_settings(name, **changes))


def repaint_editor(
    model: nn.Module, name: str | Path = "default", classifier: nn.Module | None = None, **changes: Any
) -> RePaint:
    """RePaint with a model, and the settings of `configs/repaint/<name>.yaml`."""
    return RePaint(model, repaint_settings(name, **changes), classifier)


def pixel_sampler(
    model: nn.Module, name: str | Path = "default", classifier: nn.Module | None = None, **changes: Any
) -> PixelSampler:
    """A model of pictures with the settings of `configs/sample/<name>.yaml` where a call says nothing else."""
    return PixelSampler(model, pixel_settings(name, **changes), classifier)
