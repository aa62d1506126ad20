import argparse
import logging
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader

from ldm.utils.cli import Parser, add_job_flags, note_unused, run, sort_overrides
from ldm.utils.errors import UserError
from ldm.utils.project import ROOT
from tests.refusals import assert_line, assert_refused

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def test_a_command_shows_what_is_logged_once(capsys, caplog):
    """On what stderr is at the time, not when it was set up."""
    log = logging.getLogger("ldm.anything")
    run(lambda: None)
    run(lambda: [log.debug("hidden"), log.info("from %s", "a.ckpt"), log.warning("small")])
    assert capsys.readouterr() == ("", "from a.ckpt\nsmall\n")
    assert caplog.messages == ["from a.ckpt", "small"]


def test_overrides_may_stand_behind_the_config_files():
    assert sort_overrides(["a.yaml", "b.yaml", "x.y=1"], ["z=2"]) == (["a.yaml", "b.yaml"], ["x.y=1", "z=2"])


def test_help_shows_the_defaults_that_say_something():
    parser = Parser("Do it.")
    parser.add_argument("word", nargs="*", help="words to do")
    parser.add_argument("--no", action="store_true", help="do not")
    parser.add_argument("--none", help="whom")
    parser.add_argument("--often", type=int, default=0, help="so often")
    parser.add_argument("--where", default="here", help="where (default: elsewhere)")
    shown = " ".join(parser.format_help().split())
    assert "so often (default: 0)" in shown
    assert shown.count("(default: ") == 2 and "where (default: elsewhere)" in shown


def job_parser() -> Parser:
    parser = Parser("Do it.")
    for name in ("image", "mask", "box", "film"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    add_job_flags(parser)
    return parser


@pytest.mark.parametrize("given", ["--image a --mask b", "--image a --box b --film c", "--jobs l", "--jobs l --mask b"])
def test_a_picture_or_a_list_of_jobs(given):
    parser = job_parser()
    parser.check_jobs(parser.parse_args(given.split()), ("image", ("mask", "box")), ("image", "film"))


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("--film c", "--image"),
        ("--image a", ("--mask", "--box")),
        ("--jobs l --film c", ("--film", "--jobs")),
        ("--jobs l --image a --mask b", ("--image", "--jobs")),
        ("--jobs l --batch 0", ("--batch", 0)),
    ],
)
def test_neither_or_both(capsys, given, wanted):
    parser = job_parser()
    with pytest.raises(SystemExit) as stop:
        parser.check_jobs(parser.parse_args(given.split()), ("image", ("mask", "box")), ("image", "film"))
    assert_refused((stop.value.code, *capsys.readouterr()), wanted)


class Unreadable:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("picture a.jpg: it is cut off")


class TwoLines:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("config a.yaml:\nnot YAML")


@pytest.mark.parametrize(
    "data, workers, line",
    [
        (Unreadable(), 0, "picture a.jpg: it is cut off"),
        (Unreadable(), 1, "picture a.jpg: it is cut off"),
        (TwoLines(), 0, "config a.yaml: not YAML"),
        (TwoLines(), 1, "config a.yaml: not YAML"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys, data, workers, line):
    """A worker's error comes back from torch as a message with the whole traceback."""
    with pytest.raises(SystemExit) as stop:
        run(lambda: next(iter(DataLoader(data, num_workers=workers))))
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_an_error_may_have_a_code_of_its_own(capsys):
    class Empty(UserError):
        exit_code = 3

    def fails():
        raise Empty("nothing found")

    with pytest.raises(SystemExit) as stop:
        run(fails)
    assert (stop.value.code, capsys.readouterr().err) == (3, "error: nothing found\n")


def test_flags_without_effect_are_told(capsys):
    note_unused(flag for flag in ("--a", "--b"))
    assert_line(capsys.readouterr().err.removesuffix("\n"), "--a", "--b")
    note_unused(["--c"], "the mask is given")
    assert_line(capsys.readouterr().err.removesuffix("\n"), "--c", "the mask is given")
    note_unused([])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_help_is_free_of_empty_defaults(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    space = {"__name__": "script", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    with pytest.raises(SystemExit):
        space["main"]()
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage:")
    assert not [bad for bad in ("default: None", "SUPPRESS", "default: []", "default: False") if bad in shown]


def test_a_script_that_is_terminated_leaves_no_temporary_file(tmp_path):
    script = f"""
import time
from ldm.utils.cli import run
from ldm.utils.files import replacing

def main():
    with replacing({str(tmp_path / "out")!r}):
        print("writing", flush=True)
        time.sleep(60)

run(main)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n" and len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait() == 143
    assert not list(tmp_path.iterdir())
