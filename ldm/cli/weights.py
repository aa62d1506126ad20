"""The model of a command: its config, its weights, and the line that describes it."""

import sys
from collections.abc import MutableMapping
from typing import Any

from ldm.models.diffusion import DiffusionModel


def choose_config(given: MutableMapping[str, Any]) -> None:
    """Put the config of the flags of `ldm.utils.cli.add_model_flags` among them, if none was given.

    Without weights it is the default; with weights the config that fits their file, if one is known. It is said on
    stderr.
    """
    default = given.pop("default_config")
    if "config" in given:
        return
    given["config"] = default
    if "ckpt" in given:
        from ldm.doctor.recognise import config_of

        files = ", ".join(map(str, given["ckpt"]))
        found = config_of(given["ckpt"])
        given["config"] = found or default
        why = f"which fits the tensors of {files}" if found else f"since no other is known for the tensors of {files}"
        print(f"config: {given['config']}, {why}", file=sys.stderr)


def describe(model: DiffusionModel) -> str:
    """Return what a first line adds about a model that knows few kinds of pictures."""
    return f", a model that knows {model.domain.pictures} alone" if model.domain else ""
