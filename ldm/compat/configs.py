"""Config files of the original codes in our layout, each code by a table of its own.

Whoever opens a config that a person names loads it by the `load_config` of this module.
"""

import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm import config as ours
from ldm.compat import latent_diffusion, repaint
from ldm.compat.table import Flat
from ldm.utils.errors import UserError
from ldm.utils.project import CONFIGS

CODES = (latent_diffusion, repaint)


def load_config(*names: str | Path, overrides: Iterable[str] = ()) -> DictConfig:
    """Load configs as `ldm.config.load_config` does, and those of the original codes as ours.

    What is not as in ours, and what is left out, is said on stderr.

    Raises:
        UserError: as there; or an original's file has an unknown key, or says what this code cannot do.
    """
    return ours.load_config(*names, overrides=overrides, read=read)


def read(path: Path) -> DictConfig:
    """Read one file, translated if it is an original's."""
    node = ours.read_yaml(path)
    if not is_original(OmegaConf.to_container(node)):
        return node
    try:
        name, values, left = translate(OmegaConf.to_container(node, resolve=True), str(path))
    except OmegaConfBaseException as error:
        raise UserError(f"config {path}: {str(error).splitlines()[0]}") from error
    config = ours.load_config(CONFIGS / name)
    print(f"config {path}: in the layout of the original code; here it is configs/{name} with", file=sys.stderr)
    for key, value in values.items():
        if value != _value(config, key):
            print(f"  {key} = {json.dumps(value)}", file=sys.stderr)
            OmegaConf.update(config, key, value, merge=False)
    for reason in dict.fromkeys(left.values()):
        keys = (key.replace(".params", "") for key in left if left[key] == reason)
        print(f"  left out: {', '.join(keys)} ({reason})", file=sys.stderr)
    return config


def is_original(node: dict) -> bool:
    """Tell whether a config file is one of an original code's."""
    return any(code.wrote(node) for code in CODES)


def translate(node: dict, file: str) -> tuple[str, Flat, dict[str, str]]:
    """Return the config of ours that a file comes down to, values by dotted keys, and what is left out, with reasons.

    Raises:
        UserError: a key is unknown, or says what this code cannot do.
    """
    return next(code for code in CODES if code.wrote(node)).translate(node, file)


def _value(config: DictConfig, key: str) -> Any:
    """What is in use: as a config says it, or as the target has it by default."""
    owner, _, name = key.rpartition(".params.")
    value = OmegaConf.select(config, key, default=inspect.Parameter.empty)
    if owner and value is inspect.Parameter.empty:
        return inspect.signature(ours.locate(OmegaConf.select(config, f"{owner}.target"))).parameters[name].default
    return value
