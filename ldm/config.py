"""Configs: OmegaConf YAML in, built objects out. The only module of `ldm` that imports by name.

A node `{target: package.module.Class, params: {...}}` is built by calling its target; nodes inside `params` come first.
A mapping `{include: models/kl_f8.yaml}` stands for the content of that file (relative to `configs/`), so each network's
hyper-parameters are written once; keys beside `include` are merged over it. A node of another `target` replaces the one
that it is merged over.
"""

import importlib
import inspect
import logging
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest
from ldm.utils.project import CONFIGS, ROOT

log = logging.getLogger(__name__)

MOVED = {  # class paths in configs of before they moved
    "ldm.data.toyworld.ToyCaptions": "ldm.toyworld.datasets.ToyCaptions",
    "ldm.data.toyworld.ToyScenes": "ldm.toyworld.datasets.ToyScenes",
    "ldm.data.toyworld_judge.ToyWorldJudged": "ldm.toyworld.datasets.ToyWorldJudged",
    "ldm.evaluation.judge.Judge": "ldm.toyworld.judge.Judge",
}
FIRST = {new: old for old, new in MOVED.items()}
"""Where a class that has moved was first: digests of configs are made of these names, and so outlive a move."""


def find_config(name: str | Path) -> Path:
    """Find a config: a path, or a name under `configs/` with or without `.yaml` (`toyworld`, `models/kl_f8`)."""
    candidates = [Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml", ROOT / name]
    for path in candidates:
        if os.path.isfile(path):  # a Path of too long a name would raise
            return path
    known = [f"configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")]
    raise UserError(f"config {name}: neither a file nor a name in {CONFIGS}; {nearest(str(name), known)}")


def read_yaml(path: Path) -> DictConfig:
    """Read a YAML file as it is, without its includes.

    Raises:
        UserError: it is no YAML mapping, or cannot be read.
    """
    try:
        config = OmegaConf.load(path)
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise UserError(f"config {path}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # PyYAML's own errors share no base with the above
        raise UserError(f"config {path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"config {path}: expected a mapping at the top level")
    return config


def load_config(
    *names: str | Path, overrides: Iterable[str] = (), read: Callable[[Path], DictConfig] = read_yaml
) -> DictConfig:
    """Load YAML files, later ones over earlier ones, then `key=value` overrides with dotted keys.

    In the keys of overrides `.params` may be left out: `data.batch_size` is `data.params.batch_size`. A node that is
    built has no other keys than `target` and `params`, so every other name in it can only be that of a parameter.

    Args:
        read: reads one file; `ldm.compat.configs.load_config` takes those of the original codes too.

    Raises:
        UserError: a file is missing or no YAML mapping, or an override is no `key=value` or names an unknown key (with
            the nearest one). Any parameter of a target may be given, listed or not, and any key of `trainer`.
    """
    config = reduce(_merge, (_read(find_config(name), read) for name in names))
    for override in overrides:
        if "=" not in override:
            raise UserError(f"override {override!r}: expected key=value, e.g. trainer.max_steps=1000")
        key, _, value = override.partition("=")
        node = plain(config)
        key = _in_full(key, node)
        _check_key(node, key, override)
        try:
            config = _merge(config, OmegaConf.from_dotlist([f"{key}={value}"]))
        except Exception as error:  # PyYAML's and OmegaConf's errors share no base
            raise UserError(f"override {override!r}: cannot be set ({' '.join(str(error).split())})") from error
    return config


def plain(config: DictConfig, resolve: bool = False) -> dict[str, Any]:
    """Return a config as plain dictionaries and lists, with its interpolations resolved if asked for."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=resolve))


def _merge(config: DictConfig, over: DictConfig) -> DictConfig:
    """Merge `over` over `config`, mapping by mapping; where it names another target, the old one's parameters go."""

    def merge(below: Any, above: Any) -> Any:
        if not (isinstance(below, dict) and isinstance(above, dict)):
            return above
        if "target" in above and above["target"] != below.get("target"):
            return above
        return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}

    return OmegaConf.create(merge(plain(config), plain(over)))


def _in_full(key: str, node: dict) -> str:
    """Return a dotted key with the `params` that were left out of it."""
    names: list[str] = []
    for part in key.split("."):
        is_target = "target" in node  # then every name but `target` and `params` is one of its parameters
        steps = ["params", part] if is_target and part not in ("target", "params") else [part]
        for name in steps:
            names.append(name)
            inner = node.get(name)
            node = inner if isinstance(inner, dict) else {}
    return ".".join(names)


def _check_key(config: dict, key: str, override: str) -> None:
    *parents, leaf = key.split(".")
    owner, node = {}, config
    for depth, part in enumerate(parents, start=1):
        owner, value = node, node.get(part)
        if isinstance(value, str) and value.startswith("${"):  # what it stands for may be in use elsewhere too
            there = ".".join([value[2:-1], *parents[depth:], leaf])
            raise UserError(f"override {override!r}: {'.'.join(parents[:depth])} is {value}; did you mean {there}?")
        node = value if isinstance(value, dict) else {}
    known = [name for name in _keys(config) if not key.startswith(f"{name}.")]
    if key in known or parents == ["trainer"]:  # whose parameters are Lightning's
        return
    if parents and parents[-1] == "params" and "target" in owner:
        known += [".".join([*parents, name]) for name in inspect.signature(locate(owner["target"])).parameters]
    if key not in known:
        given = override.partition("=")[0]
        choices = (
            known if given == key else [name.replace(".params", "").removeprefix("params.") for name in known]
        )  # as short as what is given
        raise UserError(f"override {override!r}: unknown key; {nearest(given, choices)}")


def _keys(node: dict, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of everything inside, outer ones first."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def _read(path: Path, read: Callable[[Path], DictConfig], within: tuple[Path, ...] = ()) -> DictConfig:
    """Read a file with its includes; `within` are the files that include it."""
    if path.resolve() in within:
        raise UserError(f"config {path}: includes itself")
    return _resolve_includes(read(path), (*within, path.resolve()))


def _resolve_includes(node: Any, within: tuple[Path, ...]) -> Any:
    if isinstance(node, DictConfig):
        beside = {key: _resolve_includes(node._get_node(key), within) for key in node if key != "include"}
        if "include" in node:
            return _merge(_read(find_config(node.include), read_yaml, within), OmegaConf.create(beside))
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
    if beside := set(node) - {"target", "params"}:
        raise UserError(f"config node {node['target']}: unknown key {min(beside)!r} beside target and params")
    target, params = locate(node["target"]), node.get("params") or {}
    signature = inspect.signature(target)
    try:  # before anything inside is built, which may take long
        signature.bind(**params)
    except TypeError as error:
        unknown = [key for key in params if key not in signature.parameters]
        what = f"unknown parameter {unknown[0]!r}; {nearest(unknown[0], signature.parameters)}" if unknown else error
        raise UserError(f"config node {node['target']}: {what}") from error
    return target(**{key: build(value) for key, value in params.items()})


def locate(name: str) -> Any:
    """Return the class or function of a dotted name: `package.module.Class` or `package.module.Class.method`.

    If a module has moved since the config of a run folder was written, its names are looked up in the new place.
    """
    if name in MOVED:
        log.warning("config target %s: has moved to %s", name, name := MOVED[name])
    found, path = None, ""
    for part in name.split("."):
        outer, path = found, f"{path}.{part}".lstrip(".")
        try:
            found = importlib.import_module(path) if part else None
        except ModuleNotFoundError as error:
            if path != error.name and not path.startswith(f"{error.name}."):
                raise  # of a module that exists and imports one that does not
            found = getattr(outer, part, None)
        if found is None:
            hint = f"; in {path.rpartition('.')[0]}, {nearest(part, _members(outer))}" if outer else ""
            raise UserError(f"config target {name}: no such class or function{hint}")
    if not callable(found):
        raise UserError(f"config target {name}: no class or function")
    return found


def _members(owner: Any) -> list[str]:
    modules = [module.name for module in pkgutil.iter_modules(getattr(owner, "__path__", ()))]
    return [name for name in {*modules, *dir(owner)} if not name.startswith("_")]
