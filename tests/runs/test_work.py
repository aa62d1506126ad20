"""The loop over a list of jobs, with a stand-in for the model: a picture's colour tells its job and its batch."""

import json
import os
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from PIL import Image

from ldm.diffusion.schedule import Schedule
from ldm.editors.exemplar import ExemplarEditor
from ldm.presets import EditSettings
from ldm.runs.jobs import Job
from ldm.runs.work import Outcome, editor_about, run_jobs
from ldm.utils.cli import report_jobs
from ldm.utils.errors import SomeFailed, UserError
from ldm.utils.image import open_image
from ldm.utils.png import read_settings
from ldm.utils.processes import this_share
from tests.processes import HANGS, train_together
from tests.refusals import assert_line, refused
from tests.tiny import tiny_model

COUNT = 11
ABOUT = {"settings": {"steps": 3, "sampler": "ddim"}, "weights": "abc"}


class Maker:
    """Colours: red is the job's own picture's, green the number of rows in its batch. Counts what it makes."""

    def __init__(self, bad=(), batches=None):
        self.bad, self.batches = bad, [] if batches is None else batches

    def open(self, job: Job) -> int:
        if "unreadable" in self.bad and job.name == "03":
            raise UserError("mask: nothing is selected")
        return open_image(job.image).getpixel((0, 0))[0]

    def make(self, jobs, colours):
        names = [job.name for job in jobs]
        self.batches.append(names)
        if "batch" in self.bad and "05" in names:
            raise UserError("the model's output is not finite")
        pictures = [Image.new("RGB", (2, 2), (colour, len(jobs), 0)) for colour in colours]
        return [
            UserError("empty") if "empty" in self.bad and n == "07" else p for n, p in zip(names, pictures, strict=True)
        ]


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "in").mkdir()
    made = []
    for i in range(COUNT):
        file = tmp_path / "in" / f"{i:02}.png"
        Image.new("RGB", (1, 1), (20 * i, 0, 0)).save(file)
        made.append(Job(f"{i:02}", file, seed=i, place=f"jobs.csv line {i + 2}"))
    return made


def work(jobs, folder, maker=None, about=ABOUT, batch=4, **more) -> Outcome:
    maker = maker or Maker()
    return run_jobs(jobs, folder, about, maker, batch=batch, **more)


def as_a_script(jobs, folder, maker=None, wrong=()) -> None:
    maker = maker or Maker()
    outcome = run_jobs(jobs, folder, ABOUT, maker, batch=4)
    report_jobs(folder, outcome.made, outcome.there, [*wrong, *outcome.failed])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_job_becomes_a_picture_that_says_what_it_depends_on(jobs, tmp_path):
    outcome = work(jobs, tmp_path / "out")
    assert outcome == Outcome(COUNT, 0, [])
    results = sorted((tmp_path / "out" / "results").iterdir())
    assert [path.name for path in results] == [f"{i:02}.png" for i in range(COUNT)]
    with Image.open(results[5]) as picture:
        assert picture.getpixel((0, 0)) == (100, 4, 0)
    about = {**ABOUT, "batch": 4}
    assert json.loads((tmp_path / "out" / "run.json").read_text()) == about
    assert read_settings(results[5]) == {
        **about, "name": "05", "image": str(jobs[5].image), "seed": 5, "digest": jobs[5].digest()
    }  # fmt: skip


def test_what_is_there_is_not_made_again_and_a_batch_is_made_as_a_whole(jobs, tmp_path):
    work(jobs, tmp_path / "whole")
    work(jobs, tmp_path / "out")
    for name in ("04", "06", "10"):
        (tmp_path / "out" / "results" / f"{name}.png").unlink()
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "out" / "results" / f".04.png.{dead.pid}.tmp").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").glob("[0-9]*")}
    maker = Maker()
    assert work(jobs, tmp_path / "out", maker) == Outcome(3, COUNT - 3, [])
    assert maker.batches == [["04", "05", "06", "07"], ["08", "09", "10"]]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert work(jobs, tmp_path / "out", maker) == Outcome(0, COUNT, []) and len(maker.batches) == 2


def test_a_job_that_fails_is_reported_and_the_others_are_made(jobs, tmp_path, capsys, caplog):
    jobs[9].image.unlink()
    outcome = work(jobs, tmp_path / "out", Maker(bad=("unreadable", "empty")))
    assert outcome.made == COUNT - 3
    first, second, third = outcome.failed
    assert_line(first, "jobs.csv", 5, "mask: nothing is selected")
    assert_line(second, "jobs.csv", 9, "empty")
    assert_line(third, "jobs.csv", 11, jobs[9].image)
    capsys.readouterr()
    with refused(4, 12, error=SomeFailed) as failure:
        as_a_script(jobs, tmp_path / "out", Maker(bad=("unreadable", "empty")), ["jobs.csv line 20: no mask"])
    assert failure.value.exit_code == 4
    assert caplog.messages == [f"error: {line}" for line in ("jobs.csv line 20: no mask", *outcome.failed)]
    assert_line(capsys.readouterr().out.removesuffix("\n"), tmp_path / "out", 0, 8, 4)
    Image.new("RGB", (1, 1), (180, 0, 0)).save(jobs[9].image)
    assert work(jobs, tmp_path / "out") == Outcome(3, COUNT - 3, [])


def test_a_batch_that_fails_takes_its_own_jobs_with_it(jobs, tmp_path):
    outcome = work(jobs, tmp_path / "out", Maker(bad=("batch",)))
    assert outcome.made == 7
    assert [line[:15] for line in outcome.failed] == [f"jobs.csv line {i + 2}"[:15] for i in range(4, 8)]


class Broken(Maker):
    def open(self, job):
        return 1 / 0


def test_a_bug_is_no_failure_of_a_job(jobs, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_jobs(jobs, tmp_path / "out", ABOUT, Broken(), batch=2)


def test_nothing_wrong_ends_well(jobs, tmp_path, capsys):
    work(jobs[:3], tmp_path / "out")
    as_a_script(jobs, tmp_path / "out")
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 8 made, 3 there before, 0 failed\n"


@pytest.mark.parametrize(
    "about, batch, wanted",
    [
        ({**ABOUT, "weights": "xyz"}, 4, ("weights", "abc", "xyz")),
        ({**ABOUT, "settings": {"steps": 4, "sampler": "ddim"}}, 4, ("settings.steps", 3, 4)),
        ({**ABOUT, "device": "cpu"}, 4, ("device", None, "cpu")),
        ({"settings": ABOUT["settings"]}, 4, ("weights", "abc", None)),
        (ABOUT, 5, ("batch", 4, 5)),
    ],
)
def test_a_folder_of_another_run_is_refused(jobs, tmp_path, about, batch, wanted):
    work(jobs[:2], tmp_path / "out")
    before = contents(tmp_path / "out")
    with refused(tmp_path / "out", wanted):
        work(jobs, tmp_path / "out", about=about, batch=batch)
    assert contents(tmp_path / "out") == before


def test_a_result_of_other_inputs_is_told_and_kept(jobs, tmp_path):
    work(jobs, tmp_path / "out")
    before = contents(tmp_path / "out")
    Image.new("RGB", (1, 1), (1, 2, 3)).save(jobs[2].image)
    (tmp_path / "out/results/08.png").write_bytes(b"no picture")
    Image.new("RGB", (1, 1)).save(tmp_path / "out/results/09.png")
    outcome = work(jobs, tmp_path / "out")
    assert (outcome.made, outcome.there) == (0, COUNT - 3)
    for name, line in zip(("02.png", "08.png", "09.png"), outcome.failed, strict=True):
        assert_line(line, name)
    after = contents(tmp_path / "out")
    assert all(after[name] == before[name] for name in before if name not in ("results/08.png", "results/09.png"))


def test_an_input_that_changes_while_its_picture_is_made_is_found_out(jobs, tmp_path):
    class Changing(Maker):
        def make(self, *batch):
            Image.new("RGB", (1, 1), (1, 2, 3)).save(jobs[2].image)
            return super().make(*batch)

    assert work(jobs[:4], tmp_path / "out", Changing()).made == 4
    (line,) = work(jobs[:4], tmp_path / "out").failed
    assert "02.png: made from other inputs" in line


def test_models_are_told_apart_by_weights_and_constants():
    """A config's name is none of it: `v1` and `configs/v1.yaml` are the same."""

    def about(model) -> dict:
        return editor_about(ExemplarEditor(model, EditSettings.read()), "full")

    first, betas = about(deepcopy(tiny_model())), tiny_model().schedule.betas
    for name, value in {"scale_factor": 2.0, "prediction": "v", "schedule": Schedule(betas / 2)}.items():
        setattr(other := deepcopy(tiny_model()), name, value)
        assert {key for key in first if first[key] != about(other)[key]} == {name}
    other = deepcopy(tiny_model())
    other.unet.out[-1].bias.data.add_(1)
    assert {key for key in first if first[key] != about(other)[key]} == {"weights"}


def test_a_folder_that_cannot_be_written_to(jobs, tmp_path):
    (tmp_path / "file").touch()
    with refused(tmp_path / "file"):
        work(jobs, tmp_path / "file" / "out")


def in_a_process(rank, jobs, folder):
    batches = []
    bad = ("empty",) if rank else ("unreadable",)
    outcome = work(jobs, folder / "out", Maker(bad, batches), share=this_share())
    assert outcome == Outcome(COUNT - 2, 0, ["jobs.csv line 5: mask: nothing is selected", "jobs.csv line 9: empty"])
    assert len(list((folder / "out" / "results").iterdir())) == COUNT - 2  # the other's too

    (folder / f"{rank}.json").write_text(json.dumps(batches))


def test_two_processes_share_the_batches_and_know_of_each_other(jobs, tmp_path):
    train_together(in_a_process, jobs, tmp_path)
    alone = Maker(bad=("unreadable", "empty"))
    work(jobs, tmp_path / "alone", alone)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert shares == [alone.batches[::2], alone.batches[1::2]]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.runs.test_work import Maker, work
from ldm.runs.jobs import Job

folder, after, at = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jobs = [Job(f"{i:02}", folder / "in" / f"{i:02}.png", seed=i, place=f"jobs.csv line {i + 2}") for i in range(11)]
count, replace = 0, os.replace

def replacing(source, target):
    global count
    count += 1
    if count == after and at == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if count == after and at == "after":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = replacing
work(jobs, folder / "out")
"""


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_and_repeated_it_leaves_what_an_undisturbed_run_does(jobs, tmp_path, at):
    """Killed again and again, each time when it has put one, or five, files into place, or is about to."""
    work(jobs, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    for after in (1, 5):
        command = [sys.executable, "-c", KILLED, tmp_path, str(after), at]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=HANGS)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = len(list((tmp_path / "out" / "results").glob("[0-9]*.png")))
    assert 0 < left < COUNT
    assert work(jobs, tmp_path / "out") == Outcome(COUNT - left, left, [])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
