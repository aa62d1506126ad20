"""`ldm` itself, and `ldm env`."""

import json
import subprocess
import sys

import pytest

import ldm
from ldm.__main__ import main
from ldm.utils.cli import Parser, command
from tests.processes import HANGS
from tests.refusals import assert_refused


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ldm", *words])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_env_names_versions_and_machine_and_keeps_secrets(run, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, out, _ = run("env", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["ldm"]["version"] == ldm.__version__
    assert {"system", "processor", "disk"} <= facts["machine"].keys() and "cuda" in facts["devices"]
    assert facts["environment"].items() >= {"WANDB_API_KEY": "(set)", "OMP_NUM_THREADS": "1"}.items()
    code, out, _ = run("env")
    assert code == 0 and f"version                  {ldm.__version__}" in out and "0123456789abcdef" not in out


def test_env_works_where_torch_does_not(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run("env", "--json")
    assert code == 0 and "torch" in json.loads(out)["devices"]


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_lists_the_verbs(run, words):
    code, out, _ = run(*words)
    assert code == 0 and out.startswith("usage: ldm COMMAND") and "  edit " in out and "  env " in out


def test_the_version(run):
    assert run("--version") == (0, f"ldm {ldm.__version__}\n", "")


def test_an_unknown_verb_gets_the_nearest_one(run):
    assert_refused(run("pait"), "pait", "repaint")


def test_a_verb_is_what_its_usage_calls_the_program(run):
    code, out, _ = run("training-cost", "--help")
    assert code == 0 and out.startswith("usage: ldm training-cost ")
    assert Parser.verb == ""  # a script that is run next is no verb
    assert_refused(run("training_cost", "--no-such-flag"), "--base")


def test_an_ldm_of_the_working_directory_is_not_taken_for_this_one(tmp_path):
    """The original's clone has one. What Lightning starts for another device is `python -m ldm.__main__ ...`."""
    (tmp_path / "ldm").mkdir()
    (tmp_path / "ldm" / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": HANGS}
    done = subprocess.run(command("--version"), **options)
    assert (done.returncode, done.stdout) == (0, f"ldm {ldm.__version__}\n"), done.stderr
    given = json.loads(subprocess.run(command("env", "--json"), **options).stdout)["environment"]
    assert given["PYTHONSAFEPATH"] == "1"
