"""`ldm reproduce-toyworld` up to the commands that it runs."""

import subprocess
import sys
from importlib import import_module

import pytest

from ldm.__main__ import MODULES
from ldm.cli.studies import reproduce_toyworld
from ldm.utils.cli import Parser


class Parsed(Exception):
    pass


@pytest.fixture
def commands(tmp_path, monkeypatch, capsys):
    """The verbs that are run, with their arguments, and the stages told."""
    table = tmp_path / "logs/toyworld_autoencoder/csv/metrics.csv"
    table.parent.mkdir(parents=True)
    table.write_text("step,val/latent_std\n1,2.0\n")
    ran = []

    def run(command):
        ran.append((command[4], command[5:]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)

    def commands(*flags: str):
        monkeypatch.setattr(sys, "argv", ["ldm reproduce-toyworld", "--logs", str(tmp_path / "logs"), *flags])
        reproduce_toyworld.main()
        told = [line[3:].partition(":")[0] for line in capsys.readouterr().out.splitlines() if ": about" in line]
        return ran, told, reproduce_toyworld.MINUTES

    return commands


def test_every_stage_is_done_in_its_order(commands):
    _, told, minutes = commands()
    assert told == list(minutes)


def test_the_networks_that_measure_are_those_just_trained(commands, tmp_path):
    ran = [(name, dict(zip(words[::2], words[1::2], strict=True))) for name, words in commands("--count", "50")[0][-4:]]
    logs = tmp_path / "logs"
    assert [name for name, _ in ran] == ["measure-toyworld", "measure-diffedit", "measure-repaint", "bits-per-dim"]
    judge = {"--judge": f"{logs}/toyworld_judge/config.yaml", "--count": "50"}
    prior = f"{logs}/toyworld_prior/config.yaml"
    assert judge.items() <= ran[0][1].items() and judge.items() <= ran[1][1].items()
    clip = f"{logs}/toyworld_clip/config.yaml"
    assert {"--model": prior, "--clip": clip, "--count": "32"}.items() <= ran[2][1].items()
    assert {"--config": prior, "--count": "16"}.items() <= ran[3][1].items()


def test_the_commands_know_their_flags(commands, monkeypatch):
    ran, parse = commands("--count", "1")[0], Parser.parse_args

    def parse_only(parser, *given):
        parse(parser, *given)
        raise Parsed

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    for name, words in ran:
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(Parsed):
            import_module(MODULES[name]).main()
