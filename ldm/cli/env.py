"""Print what a bug report needs: versions, machine, devices."""

import json
import os
import platform
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from ldm import __version__
from ldm.utils.cli import Parser
from ldm.utils.project import DISTRIBUTION, INSTALLED, PACKAGE, commit, installed_version
from ldm.utils.sizes import size

VARIABLES = re.compile(r"(OMP|MKL|CUDA|NCCL|TORCH|PYTORCH|HF|WANDB|SLURM|MASTER)_\w+|PYTHON\w+|\w*RANK|\w*WORLD_SIZE")
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD")


def main() -> None:
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as JSON")
    args = parser.parse_args()

    facts = {"ldm": project(), "machine": machine(), "devices": devices(), **packages(), "environment": variables()}
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    for title, rows in facts.items():
        print(f"{title}:")
        for name, value in rows.items():
            print(f"  {name:<24} {value}")


def project() -> dict[str, str]:
    """Return which code this is and what runs it."""
    return {
        "version": __version__,
        "from": f"{'a wheel' if INSTALLED else 'a clone'} in {PACKAGE}",
        "commit": commit(),
        "python": f"{platform.python_version()} in {sys.prefix}",
    }


def machine() -> dict[str, str]:
    """Return system, processor, memory and free disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {"system": platform.platform(), "processor": f"{_processor()}, {cores} cores"}
    if hasattr(os, "sysconf"):  # not on Windows
        facts["memory"] = size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return {**facts, "disk": f"{size(shutil.disk_usage(Path.cwd()).free)} free in {Path.cwd()}"}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def devices() -> dict[str, str]:
    """Return what torch can compute on."""
    try:
        import torch
    except Exception as error:  # a broken installation is what may have to be reported
        return {"torch": f"cannot be imported: {' '.join(str(error).split())}"}
    facts = {"cuda": f"torch is built for {torch.version.cuda or 'none'}"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{about.name}, {size(about.total_memory)}"
    if not torch.cuda.is_available():
        facts["cuda"] += ", no device is available"
    return {**facts, "mps": "available" if torch.backends.mps.is_available() else "not available"}


def packages() -> dict[str, dict[str, str]]:
    """Return the version of every package that `ldm` requires, by extra; those of the base come first."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return {"packages": {DISTRIBUTION: "not installed: this is run from a folder of source code"}}
    found: dict[str, dict[str, str]] = {"packages": {}}
    for line in lines:
        name, extra = re.match(r"[\w.-]+", line)[0], re.search(r"extra == ['\"](\w+)", line)
        if name != DISTRIBUTION:  # an extra that includes another
            group = found.setdefault(f"packages of [{extra[1]}]" if extra else "packages", {})
            group[name] = installed_version(name) or "not installed"
    return found


def variables() -> dict[str, str]:
    """Return the variables that change what the libraries do; secrets are not shown."""
    given = {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}
    return {name: "(set)" if SECRET.search(name) else value for name, value in given.items()}
