import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.utils.cli import run

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def run_script(tmp_path, monkeypatch, capsys):
    """Run a script in this process, from a folder of the test's own; its classes are gone afterwards."""

    def run_script(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), next(SCRIPTS.rglob(name)))
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        code = 0
        try:
            spec.loader.exec_module(module)
            run(module.main)
        except SystemExit as stop:
            code = stop.code
        finally:
            del sys.modules[spec.name]
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return run_script
