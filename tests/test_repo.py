"""What holds for the repository as a whole: imports, commands, configs, sizes."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ldm.__main__ import MODULES as VERBS
from ldm.config import build, load_config, locate
from ldm.presets import DiffEditSettings, EditSettings, PixelSampling, RePaintSettings, Sampling
from tests.processes import HANGS
from tests.refusals import assert_refused

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "ldm").rglob("*.py")
)
PACKAGES = {name for name in MODULES if name.count(".") == 1 and name != "ldm.__main__"}

by_name = {"ids": lambda path: str(path.relative_to(ROOT))}


def python(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False
    )


# imports


def test_every_module_imports():
    """In a fresh process, where no other test has imported anything yet."""
    result = python("-c", f"import importlib\nfor name in {MODULES}: importlib.import_module(name)")
    assert result.returncode == 0, result.stderr


def test_the_layers_cover_every_package():
    """A package that stands in no layer could import anything."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert sorted(f"ldm.{name}" for layer in layers for name in layer.split(" | ")) == sorted(PACKAGES)


# commands


def test_every_verb_has_a_place_in_the_help():
    sources = {name: ROOT / f"{name.replace('.', '/')}.py" for name in MODULES if name.startswith("ldm.cli.")}
    names = {name for name, file in sources.items() if file.exists() and "\ndef main()" in file.read_text("utf-8")}
    assert sorted(VERBS.values()) == sorted(names)
    listed = python("-m", "ldm", "--help")
    assert listed.returncode == 0 and all(f"  {verb} " in listed.stdout for verb in VERBS)


@pytest.mark.parametrize("script", SCRIPTS, **by_name)
def test_a_script_is_a_verb_by_another_name(script):
    """The code is written once, in `ldm`."""
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line]
    assert len(lines) == 5 and lines[1].split()[1] in VERBS.values()


@pytest.mark.parametrize("script", SCRIPTS, **by_name)
def test_help_is_fast(script):
    """`--help` exits 0 and imports no heavy package on the way (which is what makes it fast on any machine)."""
    result = python("-X", "importtime", script, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage:")
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "argparse" in imported  # the listing is read correctly
    assert not imported & {"torch", "torchvision", "pytorch_lightning", "lightning", "open_clip", "numpy", "PIL"}


@pytest.mark.parametrize("script", SCRIPTS, **by_name)
def test_a_wrong_flag_is_one_line(script):
    result = python(script, "--no-such-flag")
    assert_refused(result)


# configs


def nodes(value):
    """Every `target` node inside, outer ones first."""
    if isinstance(value, dict):
        if "target" in value:
            yield value
        for inner in value.values():
            yield from nodes(inner)
    if isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


@pytest.mark.parametrize("path", CONFIGS, **by_name)
def test_every_config_fits_the_code(path):
    """Targets exist and take exactly the parameters given; networks are built, on the meta device."""
    config = load_config(path)
    readers = {
        "edit": EditSettings.read,
        "diffedit": DiffEditSettings.read,
        "txt2img": Sampling.read,
        "repaint": RePaintSettings.read,
        "sample": PixelSampling.read,
    }
    if reader := readers.get(path.parent.name):
        reader(path)
        return
    found = list(nodes(OmegaConf.to_container(config, resolve=True)))
    assert found or path.name == "defaults.yaml"
    for node in found:
        inspect.signature(locate(node["target"])).bind(**node.get("params") or {})
    networks = [node for node in found if node["target"].startswith(("ldm.models.", "ldm.toyworld.judge."))]
    with torch.device("meta"):
        for node in networks:
            network = build(node)
            if isinstance(network, torch.nn.Module):
                assert all(parameter.is_meta for parameter in network.parameters())


# sizes


def test_tracked_files_stay_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).exists()}
    assert "setup.py" in sizes
    assert sum(sizes.values()) < 60e6
    assert [name for name, size in sizes.items() if size > 16 * 2**20] == []
