"""scripts/reproduce_toyworld.py up to the commands that it runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.config import ROOT
from ldm.utils.cli import Parser

SCRIPT = ROOT / "scripts" / "reproduce_toyworld.py"


class Parsed(Exception):
    pass


@pytest.fixture
def commands(tmp_path, monkeypatch, capsys):
    """The names of the scripts that are run, with their arguments, and the stages told."""
    spec = importlib.util.spec_from_file_location("reproduce_toyworld", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = tmp_path / "logs/toyworld_autoencoder/csv/metrics.csv"
    table.parent.mkdir(parents=True)
    table.write_text("step,val/latent_std\n1,2.0\n")
    ran = []

    def run(command):
        ran.append((Path(command[1]).stem, command[2:]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)

    def commands(*flags: str):
        monkeypatch.setattr(sys, "argv", ["reproduce_toyworld.py", "--logs", str(tmp_path / "logs"), *flags])
        module.main()
        told = [line[3:].partition(":")[0] for line in capsys.readouterr().out.splitlines() if ": about" in line]
        return ran, told, module.MINUTES

    return commands


def test_every_stage_is_done_in_its_order(commands):
    _, told, minutes = commands()
    assert told == list(minutes)


def test_the_networks_that_measure_are_those_just_trained(commands, tmp_path):
    ran = [(name, dict(zip(words[::2], words[1::2], strict=True))) for name, words in commands("--count", "50")[0][-4:]]
    logs = tmp_path / "logs"
    assert [name for name, _ in ran] == ["measure_toyworld", "measure_diffedit", "measure_repaint", "bits_per_dim"]
    judge = {"--judge": f"{logs}/toyworld_judge/config.yaml", "--count": "50"}
    prior = f"{logs}/toyworld_prior/config.yaml"
    assert judge.items() <= ran[0][1].items() and judge.items() <= ran[1][1].items()
    clip = f"{logs}/toyworld_clip/config.yaml"
    assert {"--model": prior, "--clip": clip, "--count": "32"}.items() <= ran[2][1].items()
    assert {"--config": prior, "--count": "16"}.items() <= ran[3][1].items()


def test_the_scripts_know_their_flags(commands, monkeypatch):
    ran, parse = commands("--count", "1")[0], Parser.parse_args

    def parse_only(parser, *given):
        parse(parser, *given)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    for name, words in ran:
        monkeypatch.setattr(sys, "argv", [name, *words])
        script = {"__name__": "script", "__file__": str(SCRIPT.with_name(f"{name}.py"))}
        exec(compile(SCRIPT.with_name(f"{name}.py").read_text(encoding="utf-8"), name, "exec"), script)
        with pytest.raises(Parsed):
            script["main"]()
