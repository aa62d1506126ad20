"""Translation of the original codes' config files into our layout, with a table for each code.

Configs that a user names are loaded by `load_config` of this module.
"""

import inspect
import json
import logging
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

log = logging.getLogger(__name__)


def load_config(*names: str | Path, overrides: Iterable[str] = ()) -> DictConfig:
    """Load configs as `ldm.config.load_config` does, and translate those of the original codes.

    Values that differ from our config, and keys that are left out, are logged.

    Raises:
        UserError: as there; or an original's file has an unknown key or an unsupported value.
    """
    return ours.load_config(*names, overrides=overrides, read=read)


def read(path: Path) -> DictConfig:
    """Read one file, and translate it if it is an original's."""
    node = ours.read_yaml(path)
    if not is_original(ours.plain(node)):
        return node
    try:
        name, values, left = translate(ours.plain(node, resolve=True), str(path))
    except OmegaConfBaseException as error:
        raise UserError(f"config {path}: {str(error).splitlines()[0]}") from error
    config = ours.load_config(CONFIGS / name)
    log.info("config %s: in the layout of the original code, translated to configs/%s with", path, name)
    for key, value in values.items():
        if value != _value(config, key):
            log.info("  %s = %s", key, json.dumps(value))
            OmegaConf.update(config, key, value, merge=False)
    for reason in dict.fromkeys(left.values()):
        keys = (key.replace(".params", "") for key in left if left[key] == reason)
        log.info("  left out: %s (%s)", ", ".join(keys), reason)
    return config


def is_original(node: dict) -> bool:
    """Return whether a config file is in the layout of an original code."""
    return any(code.wrote(node) for code in CODES)


def translate(node: dict, file: str) -> tuple[str, Flat, dict[str, str]]:
    """Return the config of ours that a file is based on, values by dotted keys, and keys left out with reasons.

    Raises:
        UserError: a key is unknown, or its value is not supported.
    """
    return next(code for code in CODES if code.wrote(node)).translate(node, file)


def _value(config: DictConfig, key: str) -> Any:
    """Return the value of a key in a config, or the default of the target's parameter."""
    owner, _, name = key.rpartition(".params.")
    value = OmegaConf.select(config, key, default=inspect.Parameter.empty)
    if owner and value is inspect.Parameter.empty:
        return inspect.signature(ours.locate(OmegaConf.select(config, f"{owner}.target"))).parameters[name].default
    return value
