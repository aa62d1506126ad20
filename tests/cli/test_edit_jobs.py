"""scripts/inference.py with a list of jobs or several exemplars, from the command line to its files."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.utils.cli import command
from ldm.utils.png import read_settings
from ldm.utils.project import ROOT
from tests.cli.outputs import pixels, written
from tests.killed import killed_at
from tests.processes import HANGS
from tests.refusals import assert_mentions, assert_refused
from tests.utils.pictures import mask, photo

SIZES = [(24, 16), (32, 16), (24, 16), (24, 16), (24, 16)]
HEAD = "image,mask,exemplar,weights,seed,name"
LINES = ("0.png,m0.png,e0.png,,5,", "1.png,m1.png,e1.png;e0.png,3;1,,second",
         *(f"{k}.png,m{k}.png,e{k}.png,,," for k in (2, 3, 4)))  # fmt: skip
NAMES = ["0", "second", "2", "3", "4"]


@pytest.fixture
def table(files):
    """Write jobs.csv with these lines beside scenes, masks and exemplars 0 to 4."""
    for k, size in enumerate(SIZES):
        photo(*size, seed=k).save(files / f"{k}.png")
        mask(*size, box=(4, 4 + k, 16, 12)).save(files / f"m{k}.png")
        photo(20, 30, seed=50 + k).save(files / f"e{k}.png")

    def write(*lines: str, head: str = HEAD) -> Path:
        (files / "jobs.csv").write_text("\n".join((head, *lines)))
        return files / "jobs.csv"

    return write


@pytest.fixture
def edit(inference, table):
    """Run the script with a list of these lines."""

    def run(*lines: str, head: str = HEAD, **flags: object) -> tuple[int, str, str]:
        absent = dict.fromkeys(("image_path", "mask_path", "reference_path"))
        return inference(**{**absent, "jobs": table(*lines, head=head), "batch": 3, **flags})

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}


def test_each_is_as_its_single_run(edit, inference, tmp_path, files):
    code, out, err = edit(*LINES, precision="full", crop="auto")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "5 jobs, ddim, 2 steps, guidance 5, precision full, cpu",
        f"{tmp_path / 'out'}: 5 made, 0 there before, 0 failed",
    ]
    assert written(tmp_path / "out") == {"run.json", *(f"results/{name}.png" for name in NAMES)}
    for k, name in enumerate(NAMES[:3]):
        several = ["--reference_weights", 3, 1, "--reference_path", files / "e1.png", files / "e0.png"]
        inference(
            "--skip_grid",
            *(several if name == "second" else ()),
            scene=f"{k}.png",
            hole=f"m{k}.png",
            reference_path=None if name == "second" else files / f"e{k}.png",
            outdir=tmp_path / name,
            crop="auto",
            seed=5 if name == "0" else 3,
        )
        (single,) = (tmp_path / name / "results").iterdir()
        assert np.abs(pixels(tmp_path / f"out/results/{name}.png") - pixels(single)).max() <= 1
        assert (pixels(single) != pixels(files / f"{k}.png")).any()
    told = read_settings(tmp_path / "out/results/second.png")
    assert told["exemplars"] == [str(files / "e1.png"), str(files / "e0.png")] and told["weights"] == [3, 1]
    assert told["settings"]["seed"] == 3 and told["settings"]["crop"] == "auto" and told["batch"] == 3


def test_several_exemplars_of_one_picture(inference, tmp_path, files):
    photo(20, 30, seed=50).save(files / "other.png")
    both = ["--reference_path", files / "exemplar.jpg", files / "other.png"]
    assert inference(*both, "--reference_weights", 2, 1, reference_path=None)[0] == 0
    assert {f"source/scene_exemplar+1_3_ref{n}.png" for n in (1, 2)} <= written(tmp_path / "out")
    told = read_settings(tmp_path / "out/results/scene_exemplar+1_3.png")
    assert (told["reference_path"], told["reference_weights"]) == ([str(path) for path in both[1:]], [2, 1])
    inference(outdir=tmp_path / "one")
    assert read_settings(tmp_path / "one/results/scene_exemplar_3.png")["reference_path"] == str(files / "exemplar.jpg")
    one, mixed = (
        pixels(tmp_path / path) for path in ("one/results/scene_exemplar_3.png", "out/results/scene_exemplar+1_3.png")
    )
    assert (one != mixed).any()


def test_what_the_list_does_not_say_the_flags_do(edit, tmp_path, files):
    lines = [line.replace("e3.png", "") for line in LINES]
    assert edit(*lines, reference_path=files / "e3.png")[0] == 0
    assert edit(*LINES, outdir=tmp_path / "said")[0] == 0
    one, other = (contents(tmp_path / folder) for folder in ("out", "said"))
    assert one == other


def test_wrong_jobs_are_told_and_the_others_made(edit, tmp_path, files):
    Image.new("L", SIZES[0]).save(files / "black.png")
    (files / "torn.png").write_bytes((files / "e0.png").read_bytes()[:300])
    wrong = ["none.png,m0.png,e0.png,,,", "0.png,black.png,e0.png,,,black", "0.png,m0.png,torn.png,,,torn",
             "0.png,m0.png,e0.png,1;2,,weights", "0.png,m0.png,e0.png,,-1,seed", "0.png,m0.png,e0.png,,,2"]  # fmt: skip
    code, out, err = edit(*wrong[:3], *LINES[:3], *wrong[3:])
    assert code == 4
    assert_mentions(out.splitlines()[-1], tmp_path / "out", 3, 0, 6)
    expected = [
        ("line 2", "none.png"),
        ("line 9", "seed", -1),
        ("line 10", "name", 2, "line 7"),
        ("line 3", "black.png"),
        ("line 4", "torn.png"),
        ("line 8", "weights", "[1.0, 2.0]", 1),
        (6, 9),
    ]
    for line, wanted in zip(err.splitlines(), expected, strict=True):
        assert line.startswith("error: ")
        assert_mentions(line, wanted)
    assert written(tmp_path / "out") == {"run.json", *(f"results/{name}.png" for name in NAMES[:3])}


BAD = {
    "no list": ({"jobs": "IN/none.csv"}, "none.csv"),
    "with a picture": ({"image_path": "IN/0.png"}, ("--image", "--jobs")),
    "with a box": ({"box": "0,0,4,4"}, ("--box", "--jobs")),
    "with samples": ({"n_samples": 2}, ("--n_samples", "--jobs")),
    "weights alone": ({"reference_weights": 2}, ("--exemplar_weights", "--exemplar")),
    "no exemplar": ({"head": "image,mask,seed,name"}, ("jobs.csv", "exemplar")),
    "a prompt": ({"head": "image,mask,exemplar,prompt"}, "prompt"),
    "batch": ({"batch": 0}, ("--batch", 0)),
    "a launcher's variables": ({}, ("RANK=2", "WORLD_SIZE=2")),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input(edit, files, tmp_path, monkeypatch, flags, wanted):
    if not flags:
        for name, value in {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
            monkeypatch.setenv(name, value)
    flags = {name: str(value).replace("IN", str(files)) for name, value in flags.items()}
    assert_refused(edit(*LINES, **flags), wanted)
    assert not (tmp_path / "out").exists()


def test_another_run_in_the_same_folder_is_refused(edit, tmp_path):
    assert edit(*LINES[:2])[0] == 0
    before = contents(tmp_path / "out")
    for flags, wanted in [
        ({"scale": 3}, ("settings.guidance_scale", 5.0, 3.0)),
        ({"seed": 4}, ("settings.seed", 3, 4)),
        ({"batch": 2}, ("batch", 3, 2)),
    ]:
        assert_refused(edit(*LINES, **flags), tmp_path / "out", wanted, stdout=True)
    assert contents(tmp_path / "out") == before


def flags(model_files, files, out: Path) -> list[str]:
    given = {"config": model_files[0], "ckpt": model_files[1], "jobs": files / "jobs.csv", "outdir": out,
             "batch": 2, "seed": 3, "ddim_steps": 2, "device": "cpu"}  # fmt: skip
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def run(command: list[str]) -> subprocess.CompletedProcess:
    options = {"env": {**os.environ, "OMP_NUM_THREADS": "1"}, "cwd": ROOT, "start_new_session": True}
    return subprocess.run(command, **options, stdout=subprocess.PIPE, text=True, timeout=HANGS)


def test_killed_and_by_two_processes_the_same_bytes(model_files, files, table, tmp_path):
    """One process undisturbed; and one that is killed when there is one result, and two by torchrun to end it."""
    table(*LINES)
    assert run(command("edit", *flags(model_files, files, tmp_path / "whole"))).returncode == 0
    given, result = flags(model_files, files, tmp_path / "out"), str(tmp_path / "out/results/*.png")
    assert run(killed_at(signal.SIGKILL, result, 2, "edit", *given)).returncode == -signal.SIGKILL
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run([*torchrun, "-m", "ldm", "edit", *given])
    assert done.returncode == 0
    assert re.search(r"out: \d made, 1 there before, 0 failed\n", done.stdout) and done.stdout.count("failed") == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
