"""OmegaConf YAML in, built objects out. The only place in `ldm` that imports by name.

A node `{target: package.module.Class, params: {...}}` is built by calling its target; nodes inside `params` come first.
A mapping `{include: models/kl_f8.yaml}` stands for the content of that file (relative to `configs/`), so each network's
hyper-parameters are written once; keys beside `include` are merged over it.
"""

import importlib
import inspect
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def find_config(name: str | Path) -> Path:
    """A path as given, or a name under `configs/` with or without `.yaml` (`toyworld`, `models/kl_f8`)."""
    candidates = [Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"]
    for path in candidates:
        if os.path.isfile(path):  # a Path of too long a name would raise
            return path
    known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    raise UserError(f"config {name}: no such file, nor a name in {CONFIGS} (there: {known})")


def load_config(*names: str | Path, overrides: Iterable[str] = ()) -> DictConfig:
    """Load YAML files, later ones over earlier ones, then `key=value` overrides with dotted keys.

    Raises:
        UserError: a file is missing or no YAML mapping, or an override is no `key=value` or names an unknown key.
    """
    config = OmegaConf.merge(*(_read(find_config(name)) for name in names))
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals:
            raise UserError(f"override {override!r}: expected key=value, e.g. trainer.max_steps=1000")
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        # `params:` and `trainer:` are keyword arguments of something, which may have defaults that no file lists
        if not isinstance(node, DictConfig) or (
            leaf not in node and parent.rpartition(".")[2] not in ("params", "trainer")
        ):
            where = (
                f"{parent} has " + ", ".join(map(str, node)) if isinstance(node, DictConfig) else f"no {parent} in it"
            )
            raise UserError(f"override {override!r}: unknown key ({where})")
        try:
            config = OmegaConf.merge(config, OmegaConf.from_dotlist([override]))
        except Exception as error:  # PyYAML's and OmegaConf's errors share no base
            raise UserError(f"override {override!r}: {' '.join(str(error).split())}") from error
    return config


def _read(path: Path, within: tuple[Path, ...] = ()) -> DictConfig:
    """A file with its includes; `within` are the files that include it."""
    if path.resolve() in within:
        raise UserError(f"config {path}: includes itself")
    try:
        config = OmegaConf.load(path)
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"config {path}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # PyYAML's own errors share no base with the above
        raise UserError(f"config {path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"config {path}: expected a mapping at the top level")
    return _resolve_includes(config, (*within, path.resolve()))


def _resolve_includes(node: Any, within: tuple[Path, ...]) -> Any:
    if isinstance(node, DictConfig):
        beside = {key: _resolve_includes(node._get_node(key), within) for key in node if key != "include"}
        if "include" in node:
            return OmegaConf.merge(_read(find_config(node.include), within), beside)
        return OmegaConf.create(beside)
    return node


def build(node: Any) -> Any:
    """Build a `target`/`params` node and everything inside it; plain values come back as they are.

    Raises:
        UserError: the target does not exist, or a parameter is missing or misspelt (named).
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, list):
        return [build(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "target" not in node:
        return {key: build(value) for key, value in node.items()}
    if unknown := set(node) - {"target", "params"}:
        raise UserError(f"config node {node['target']}: unknown key {sorted(unknown)[0]!r} beside target and params")
    target = locate(node["target"])
    params = {key: build(value) for key, value in (node.get("params") or {}).items()}
    try:
        inspect.signature(target).bind(**params)
    except TypeError as error:
        raise UserError(f"config node {node['target']}: {error}") from error
    return target(**params)


def locate(name: str) -> Any:
    """The object a dotted name stands for: `package.module.Class` or `package.module.Class.method`."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:cut])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
                continue
            raise
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
            return found
        except AttributeError:
            break
    raise UserError(f"config target {name}: no such class or function")
