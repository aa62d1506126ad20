"""The command line of `ldm train`: ours, and the original's as other names of the same things."""

import subprocess
import sys
from pathlib import Path

import pytest

from ldm.cli.train import parse_args
from ldm.utils.project import ROOT
from tests.refusals import assert_line, assert_refused, refused


@pytest.fixture
def parse(monkeypatch):
    def parse(line):
        monkeypatch.setattr(sys, "argv", ["train.py", *line.split()])
        return parse_args()

    return parse


def test_the_documented_line(parse):
    line = (
        "--base a.yaml b.yaml --pretrained_model sd.ckpt --clip c.pt --logdir runs/1 --resume trainer.max_steps=5 x=1"
    )
    options = parse(line)
    assert (options.base, options.overrides) == (["a.yaml", "b.yaml"], ["trainer.max_steps=5", "x=1"])
    assert (options.logdir, options.resume) == (Path("runs/1"), True)
    assert (options.pretrained_model, options.clip) == (Path("sd.ckpt"), Path("c.pt"))


def test_the_originals_line(parse, capsys):
    options = parse(
        "--logdir models/mine --pretrained_model sd.ckpt --base configs/v1.yaml --scale_lr False -t True --no-test "
        "--project p -d --gpus 0,1, --num_nodes 2 --max_steps 7 --precision 16 --accelerator gpu -s 3"
    )
    assert (options.base, options.logdir, options.resume) == (["configs/v1.yaml"], Path("models/mine"), False)
    assert set(options.overrides) == {
        *("seed=3", "trainer.devices=[0, 1]", "trainer.num_nodes=2", "trainer.max_steps=7", "trainer.precision=16"),
        "trainer.accelerator=gpu",
    }
    assert_line(capsys.readouterr().err.removesuffix("\n"), "note", "--train", "--no-test", "--project", "--debug")


@pytest.mark.parametrize(
    "flags, folder",
    [
        ("", "logs/v1"),
        ("-n mine", "logs/mine"),
        ("-l runs -n mine", "runs/mine"),
        ("-l runs/a -f _b", "runs/a_b"),
        ("-f _2", "logs/v1_2"),
    ],
)
def test_the_run_folder(parse, flags, folder):
    assert parse(f"-b configs/v1.yaml {flags}").logdir == Path(folder)


def test_what_stands_last_wins(parse):
    assert parse("-b a.yaml --max_steps 5 trainer.max_steps=6").overrides == [
        "trainer.max_steps=5",
        "trainer.max_steps=6",
    ]


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/last/trainer.ckpt"])
def test_resume_finds_the_run(parse, tmp_path, inside):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last/trainer.ckpt"):
        (tmp_path / name).touch()
    options = parse(f"--resume {tmp_path / inside}")
    assert (options.logdir, options.resume, options.base) == (tmp_path, True, [str(tmp_path / "config.yaml")])
    assert parse(f"-b other.yaml --resume {tmp_path}").base == ["other.yaml"]
    with refused("--logdir", "--name"):
        parse(f"--resume {tmp_path} --logdir other")


@pytest.mark.parametrize(
    "line, wanted",
    [
        (
            "-b a.yaml --scale_lr",
            ("--scale_lr", "training.params.optimisation"),
        ),
        ("-b a.yaml --scale_lr True", "--scale_lr"),
        ("--resume nowhere", ("--resume", "nowhere")),
    ],
)
def test_what_cannot_be_is_refused(parse, line, wanted):
    with refused(wanted):
        parse(line)


@pytest.mark.parametrize(
    "line, wanted",
    [
        ("", "--base"),
        ("-b a.yaml --gpus x", ("--gpus", "x")),
        ("-b a.yaml --max_epochs 3", "--max_epochs"),
    ],
)
def test_a_wrong_flag_is_one_line(parse, capsys, line, wanted):
    with pytest.raises(SystemExit) as stop:
        parse(line)
    assert stop.value.code == 2
    assert_refused((2, *capsys.readouterr()), wanted)


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-X", "importtime", "scripts/train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in modules and not modules & {"torch", "numpy", "omegaconf", "yaml", "PIL", "pytorch_lightning"}
    assert "--scale_lr" not in done.stdout  # accepted, without effect
