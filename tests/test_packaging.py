"""What is installed: requirements, lock, extras, and what `make` says where it cannot install."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ldm
from ldm.utils.extras import EXTRAS
from ldm.utils.project import DISTRIBUTION, ROOT
from tests.processes import HANGS

LOCK = ROOT / "requirements.lock"
SOURCES = sorted(path for folder in ("ldm", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture
def setup_arguments(monkeypatch) -> dict:
    arguments = {}
    stand_in = SimpleNamespace(setup=arguments.update, find_packages=lambda include: include)
    monkeypatch.setitem(sys.modules, "setuptools", stand_in)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return arguments


def test_the_version_and_the_name_are_those_of_the_package(setup_arguments):
    assert setup_arguments["version"] == ldm.__version__
    assert setup_arguments["name"] == DISTRIBUTION


def test_conda_installs_the_lock(setup_arguments):
    environment = OmegaConf.to_container(OmegaConf.load(ROOT / "environment.yaml"))
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert sorted(conda) == ["pip", f"python{setup_arguments['python_requires']}"]
    assert pip == ["-r requirements.lock", "-e ."]


def test_extras_hold_each_other(setup_arguments):
    extras = {name: set(lines) for name, lines in setup_arguments["extras_require"].items()}
    assert extras["benchmark"] | extras["docs"] < extras["dev"] <= extras["all"] == set().union(*extras.values())


def locked() -> dict[str, list[Version]]:
    """Versions by name, one for each platform or Python that has its own."""
    versions: dict[str, list[Version]] = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if not line.lstrip().startswith("#"):
            pinned = Requirement(line)
            (only,) = pinned.specifier
            assert only.operator == "==", line
            versions.setdefault(canonicalize_name(pinned.name), []).append(Version(only.version))
    return versions


def test_the_lock_fits_setup(setup_arguments):
    """If this fails, `make lock` writes a new one."""
    versions = locked()
    for line in (*setup_arguments["install_requires"], *setup_arguments["extras_require"]["all"]):
        wanted = Requirement(line)
        found = versions.get(canonicalize_name(wanted.name), [])
        assert found and all(version in wanted.specifier for version in found), line


def test_the_lock_names_no_place():
    """Neither an index nor a folder: whoever installs it takes the packages from where they always do."""
    text = LOCK.read_text(encoding="utf-8")
    assert "make lock" in text.splitlines()[1]
    assert not re.search(r"://|^\s*-|file:|\s@\s|(?<![\w(])/", text, flags=re.MULTILINE)


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
UNIMPORTED = {
    "import-linter",
    "mkdocs-material",
    "mkdocstrings",
    "mypy",
    "pytest-xdist",
    "ruff",
    "tensorboard",
    "uv",
    "wandb",
}

COMPARED = {"albumentations"}  # a peer that a measurement is run against where it is installed


def requirements(lines: list[str]) -> set[str]:
    names = {re.split(r"[<>=!~; \[]", line)[0] for line in lines}
    return {MODULE_OF.get(name, name) for name in names}


def test_what_is_required_is_what_is_imported(setup_arguments):
    benchmark = requirements(setup_arguments["extras_require"]["benchmark"])
    runtime = requirements(setup_arguments["install_requires"]) | benchmark
    dev = requirements(setup_arguments["extras_require"]["dev"]) - benchmark
    ours = {"ldm", "scripts", "tests"}
    # so ldm and scripts import neither the peers of the tests nor anything that came along with something else
    shipped = set().union(*(imported_packages(path) for path in SOURCES if "tests" not in path.parts)) - ours - COMPARED
    tested = set().union(*(imported_packages(path) for path in SOURCES if "tests" in path.parts)) - ours
    assert shipped - runtime == set()
    assert tested - runtime - dev == set()
    assert (runtime - shipped) | (dev - tested) <= UNIMPORTED


def test_what_comes_with_an_extra_is_required_where_it_is_imported(setup_arguments):
    """In functions alone, which call `require`: it says what to install."""
    for path in (path for path in SOURCES if "tests" not in path.parts):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            required = {call.args[0].value for call in calls if getattr(call.func, "id", None) == "require"}
            assert packages_of(function) & EXTRAS.keys() <= required, f"{path}: {function.name}"
            function.body = []
        assert not packages_of(tree) & EXTRAS.keys(), path
    for package, extra in EXTRAS.values():
        assert any(line.startswith(package) for line in setup_arguments["extras_require"][extra]), package


# where `make` cannot install

NO_INDEX = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "0"}


@pytest.fixture
def make(tmp_path):
    """Install into a folder that has what `make` needs for it; nothing can be downloaded."""

    def make(python: str | Path = sys.executable, folder: Path = tmp_path, **options: object) -> tuple[int, list[str]]:
        command = ["make", f"PYTHON={python}", ".venv/installed"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE"))}
        done = subprocess.run(
            command, cwd=folder, env=inherited | NO_INDEX, capture_output=True, text=True, timeout=HANGS, **options
        )
        return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")]

    copy_to(tmp_path)
    return make


def copy_to(folder: Path) -> None:
    for name in ("Makefile", "setup.py", "requirements.lock"):
        shutil.copy(ROOT / name, folder)


def stand_in(folder: Path, answer: int) -> Path:
    """A Python that ends with a code when it is asked whether it is new enough."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\nexit {answer}\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("python", ["no-such-python", "old", ""])
def test_make_needs_a_python_that_is_new_enough(make, tmp_path, python):
    code, (line,) = make(stand_in(tmp_path, 1) if python == "old" else python)
    assert code == 2 and "Python 3.11" in line and "make PYTHON=" in line
    assert ("is older or not there" in line) == bool(python)
    assert not (tmp_path / ".venv").exists()


def test_make_without_a_network_says_so(make, tmp_path):
    """And an environment that was left half made is made anew."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("gone")
    code, (line,) = make()
    assert code == 2 and "network" in line
    assert (tmp_path / ".venv" / "pyvenv.cfg").is_file() and not (tmp_path / ".venv" / "installed").exists()


def test_make_keeps_an_environment_that_is_there(make, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    mine = tmp_path / ".venv" / "mine"
    mine.touch()
    code, (line,) = make()
    assert code == 2 and "network" in line and mine.exists()
    (tmp_path / ".venv" / "bin" / "python").unlink()
    shutil.copy(stand_in(tmp_path, 1), tmp_path / ".venv" / "bin" / "python")
    (tmp_path / ".venv" / "bin" / "python").write_text('#!/bin/sh\n[ -z "$2" ]\n')  # it starts, and is too old
    code, (line,) = make()
    assert code == 2 and "make clean" in line and mine.exists()


def test_make_in_a_folder_that_cannot_be_written_says_so(make):
    another = {"user": 65534} if os.geteuid() == 0 else {}  # root may write everywhere
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        copy_to(folder)
        python = stand_in(folder, 0)
        folder.chmod(0o555)
        code, (line,) = make(python, folder, **another)
        folder.chmod(0o755)
    assert code == 2 and str(folder) in line and "written" in line
