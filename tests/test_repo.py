"""What holds for the repository as a whole: packaging, imports, scripts, configs, sizes, the README's commands."""

import ast
import inspect
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

import ldm
from ldm.config import build, load_config, locate
from ldm.runs.settings import diffedit_settings, edit_settings, pixel_settings, repaint_settings, txt2img_settings
from ldm.utils.extras import EXTRAS

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SOURCES = sorted(path for folder in ("ldm", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "ldm").rglob("*.py")
)
ROOMS = {name for name in MODULES if name.count(".") == 1}

by_name = {"ids": lambda path: str(path.relative_to(ROOT))}


def python(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


# packaging


@pytest.fixture
def setup_arguments(monkeypatch) -> dict:
    arguments = {}
    stand_in = SimpleNamespace(setup=arguments.update, find_packages=lambda include: include)
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return arguments


def test_the_version_is_written_once(setup_arguments):
    assert setup_arguments["version"] == ldm.__version__


def test_environment_agrees_with_setup(setup_arguments):
    environment = OmegaConf.to_container(OmegaConf.load(ROOT / "environment.yaml"))
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    wanted = setup_arguments["install_requires"] + setup_arguments["extras_require"]["dev"]
    assert sorted(conda) == ["pip", f"python{setup_arguments['python_requires']}"]
    assert pip == [*sorted(wanted), "-e ."]


def imported_packages(path: Path) -> set[str]:
    """First names of everything a file imports absolutely, functions' own imports and `importorskip` included."""
    return packages_of(ast.parse(path.read_text(encoding="utf-8")))


def packages_of(tree: ast.AST) -> set[str]:
    nodes = list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    names |= {call.args[0].value for call in calls if call.func.attr == "importorskip"}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


MODULE_OF = {
    "open-clip-torch": "open_clip",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pytorch-lightning": "pytorch_lightning",
    "scikit-learn": "sklearn",
    "torch-fidelity": "torch_fidelity",
}
# Not imported by name: tools that are run, and what Lightning's loggers write with.
UNIMPORTED = {"import-linter", "ruff", "tensorboard", "wandb"}

COMPARED = {"albumentations", "cv2"}  # peers that measurements are run against; they are imported where they are there


def requirements(lines: list[str]) -> set[str]:
    names = {re.split(r"[<>=!~; \[]", line)[0] for line in lines}
    return {MODULE_OF.get(name, name) for name in names}


def test_what_is_required_is_what_is_imported(setup_arguments):
    runtime = requirements(setup_arguments["install_requires"])
    dev = requirements(setup_arguments["extras_require"]["dev"])
    ours = {"ldm", "scripts", "tests"}
    # so ldm and scripts import neither the peers of the tests nor anything that came along with something else
    shipped = set().union(*(imported_packages(path) for path in SOURCES if "tests" not in path.parts)) - ours - COMPARED
    tested = set().union(*(imported_packages(path) for path in SOURCES if "tests" in path.parts)) - ours
    assert shipped - runtime == set()
    assert tested - runtime - dev == set()
    assert (runtime - shipped) | (dev - tested) <= UNIMPORTED


# imports


def test_every_module_imports():
    """In a fresh process, where no other test has imported anything yet."""
    result = python("-c", f"import importlib\nfor name in {MODULES}: importlib.import_module(name)")
    assert result.returncode == 0, result.stderr


def test_what_comes_with_an_extra_is_required_where_it_is_imported():
    """In functions alone, which call `require`: it says what to install."""
    for path in (path for path in SOURCES if "tests" not in path.parts):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            required = {call.args[0].value for call in calls if getattr(call.func, "id", None) == "require"}
            assert packages_of(function) & EXTRAS.keys() <= required, f"{path}: {function.name}"
            function.body = []
        assert not packages_of(tree) & EXTRAS.keys(), path


def test_the_import_table_covers_every_room():
    """Each room of `ldm` has one contract of its own, and each is out of bounds for `utils`, the lowest."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    by_room = [contract for contract in contracts if contract["source_modules"] != ["ldm"]]
    sources = [source for contract in by_room for source in contract["source_modules"]]
    assert len(sources) == len(set(sources))
    assert set(sources) == ROOMS
    assert set(by_room[0]["forbidden_modules"]) == ROOMS - {"ldm.utils"}


# scripts


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
    assert result.returncode == 2
    assert re.fullmatch(r"error: .+\n", result.stderr), result.stderr
    assert result.stdout == ""


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
        "edit": edit_settings,
        "diffedit": diffedit_settings,
        "txt2img": txt2img_settings,
        "repaint": repaint_settings,
        "sample": pixel_settings,
    }
    if reader := readers.get(path.parent.name):
        reader(path)
        return
    found = list(nodes(OmegaConf.to_container(config, resolve=True)))
    assert found or path.name == "defaults.yaml"
    for node in found:
        inspect.signature(locate(node["target"])).bind(**node.get("params") or {})
    networks = [node for node in found if node["target"].startswith(("ldm.models.", "ldm.evaluation."))]
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


def test_no_file_is_long():
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in SOURCES}
    assert {name: count for name, count in lines.items() if count > 300} == {}


# what the README says


def readme_commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("python scripts/")]


def test_the_readme_commands_exist():
    commands = readme_commands()
    assert commands
    for script, *arguments in commands:
        usage = python(script, "--help").stdout
        flags = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        known = set(re.findall(r"(?<![\w-])--\w[\w-]*", usage))
        assert flags <= known, f"{script}: {flags - known}"
        for argument in arguments:
            if argument.startswith("configs/"):
                assert (ROOT / argument).is_file(), argument


def test_the_paths_in_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tops = "configs|ldm|scripts|dataset|pretrained_models|tests|docs"
    shown = set(re.findall(rf"(?<![\w/.-])((?:{tops})/[\w./-]*\w(?:\.\w+|/))", text))
    fetched = {"ckpt", "pt", "safetensors"}
    assert shown
    assert [path for path in shown if path.rpartition(".")[2] not in fetched and not (ROOT / path).exists()] == []
