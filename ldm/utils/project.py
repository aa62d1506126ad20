"""Where the files that come with `ldm` are, and which state of the project this is.

In a clone they lie at its top; a wheel carries them inside the package, in `ldm/shipped` (see setup.py).
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
    """Return the path of a file that a config names: from the project if it is there, else from the working directory.

    A file that is in neither gets the path where it belongs, for messages: in a clone that of the project, otherwise
    that of the working directory, since nobody puts files into an installed package.
    """
    places = (ROOT / name, Path.cwd() / name)
    return next((path for path in places if path.is_file()), places[INSTALLED])


def installed_version(distribution: str) -> str | None:
    """Return the version of a package that is installed here, None if it is not."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit that the code is of, as far as there is a clone and git to say."""
    if not (ROOT / ".git").exists():  # git would look for a repository around it
        return f"unknown: {ROOT} is no clone"
    try:
        said = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown: no git"
    return said.stdout.strip()
