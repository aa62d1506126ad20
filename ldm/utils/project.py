"""The location of the files that come with `ldm`, and the version of the code.

In a clone the files are at its top; a wheel carries them inside the package, in `ldm/shipped` (see setup.py).
"""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "ldm-edit"  # the name to install; `ldm` on PyPI is another project
PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = (PACKAGE / "shipped").is_dir()
ROOT = PACKAGE / "shipped" if INSTALLED else PACKAGE.parent
CONFIGS = ROOT / "configs"
EXAMPLES = ROOT / "dataset" / "toyworld_examples"


def find_file(name: str | Path) -> Path:
    """Return the path of a file that a config names: in the project if it exists there, else in the working directory.

    For a file in neither it is the path where the file belongs, for messages: in a clone the project's, otherwise the
    working directory's, since users do not put files into an installed package.
    """
    places = (ROOT / name, Path.cwd() / name)
    return next((path for path in places if path.is_file()), places[INSTALLED])


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of the code, or "unknown" and the reason outside a clone or without git."""
    if not (ROOT / ".git").exists():  # git would search the parent folders for a repository
        return f"unknown: {ROOT} is not a clone"
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown: no git"
    return done.stdout.strip()
