"""Edit settings from `configs/edit`: the only place their defaults come from."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from ldm.config import CONFIGS, load_config
from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.settings import EditSettings
from ldm.utils.errors import UserError


def edit_settings(name: str | Path = "default", **changes: Any) -> EditSettings:
    """The settings of `configs/edit/<name>.yaml`, or of a file of your own, with some changed.

    What the file does not say is as in `default`. Its `steps` may be a number for each sampler.

    Raises:
        UserError: no such file, an unknown key or a wrong value.
    """
    shipped = {file.stem: file for file in sorted((CONFIGS / "edit").glob("*.yaml"))}
    file = shipped.get(str(name), Path(name))
    if not os.path.isfile(file):  # a Path of too long a name would raise
        raise UserError(f"edit settings {name}: neither a file nor one of {', '.join(shipped)}")
    config = load_config(shipped["default"], file)
    values = {**OmegaConf.to_container(config, resolve=True), **changes}
    if isinstance(values["steps"], dict):
        values["steps"] = values["steps"].get(values["sampler"], 0)  # an unknown sampler is refused below
    known = [field.name for field in fields(EditSettings)]
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"edit settings {name}: unknown key {unknown[0]!r} (there are {', '.join(known)})")
    return EditSettings(**values)


def exemplar_editor(model: nn.Module, edit: str | Path = "default", **changes: Any) -> ExemplarEditor:
    """The editor of a model, with the settings of `configs/edit/<edit>.yaml` where a call says nothing else."""
    return ExemplarEditor(model, edit_settings(edit, **changes))
