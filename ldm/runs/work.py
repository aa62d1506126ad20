"""A list of jobs worked through in batches, by one process or several; killed and repeated it goes on where it was."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ldm import __version__
from ldm.editors.editor import Editor
from ldm.runs.job_edits import JobEditor
from ldm.runs.jobs import Job
from ldm.runs.kept_results import fingerprint
from ldm.runs.outputs import check_writable
from ldm.utils.errors import UserError, attempt, tell_failed
from ldm.utils.files import read_json, remove_left, write_json
from ldm.utils.png import read_settings, save_png
from ldm.utils.processes import Share, gather, wait_for_all

MADE, THERE = "made", "there"
WHOLE = Share()


@dataclass(frozen=True)
class Outcome:
    """What has become of a list of jobs, in all processes together.

    Attributes:
        made: pictures made now.
        there: those that were there.
        failed: a line for each that is not there, in the order of the list.
    """

    made: int
    there: int
    failed: list[str]


def editor_about(editor: Editor, precision: str) -> dict[str, Any]:
    """What the results of an editor depend on, for `run_jobs`: of its model all but the name, hashed where long."""
    model = editor.model
    return {
        "version": __version__,
        "weights": fingerprint(model),
        "schedule": hashlib.blake2b(model.schedule.betas.numpy().tobytes(), digest_size=8).hexdigest(),
        "prediction": model.prediction,
        "scale_factor": getattr(model, "scale_factor", None),  # of latents
        "settings": asdict(editor.settings),
        "precision": precision,
        "device": editor.like.device.type,
    }


def run_jobs(
    jobs: Sequence[Job],
    folder: str | Path,
    about: Mapping[str, Any],
    maker: JobEditor,
    *,
    batch: int,
    share: Share = WHOLE,
) -> Outcome:
    """Make the pictures of jobs that are not there, each process its share: `folder/results/<name>.png`.

    A picture is there whole or not at all, with all that it depends on inside, and is not made again. Which jobs are a
    batch is a matter of their places among `jobs` alone (a line of a list that is mended, and becomes a job, moves
    those behind it): of a batch that lacks some pictures all are made, and those
    that it lacks are written. So a run that is killed and repeated, by any number of processes, leaves the bytes of one
    that was not. In a batch of one size a row is the same bit for bit whatever the others are; in one of another size,
    or by another number of threads, sums are rounded differently (measured on a CPU: by 1e-6 of a network's output).

    Args:
        about: what all pictures depend on beside their jobs, for JSON. With the size of the batches it is kept in
            `folder/run.json`.
        maker: opens jobs and makes their pictures.
        batch: how many jobs are made at once; fewer at the list's end, and where some could not be opened.

    Returns:
        the same in every process, after the last has done its share.

    Raises:
        UserError: the folder holds results of another run, or cannot be written to. What is wrong with a job is told
            in the outcome, and the others are made.
    """
    results = Results(Path(folder), {**about, "batch": batch})
    if share.rank == 0:
        results.clear_up()
    wait_for_all(share)  # nobody writes before all have looked
    mine = share.part([range(first, min(first + batch, len(jobs))) for first in range(0, len(jobs), batch)])
    counts, failed = Counter(), {}
    hidden = True if share.rank else None  # by default: where there is no terminal
    with tqdm(total=sum(map(len, mine)), desc="pictures", unit="picture", disable=hidden) as bar:
        for places in mine:
            batch_of = [jobs[place] for place in places]
            for place, job, what in zip(places, batch_of, _make_missing(batch_of, results, maker), strict=True):
                if isinstance(what, UserError):
                    failed[place] = f"{job.place or job.name}: {what}"
                    bar.set_postfix(failed=len(failed))
                else:
                    counts[what] += 1
            bar.update(len(places))
    parts = gather((counts, failed), share)
    counts = sum((part for part, _ in parts), Counter())
    failed = {place: line for _, part in parts for place, line in part.items()}
    return Outcome(counts[MADE], counts[THERE], [failed[place] for place in sorted(failed)])


def work_list(
    jobs: Sequence[Job],
    wrong: Sequence[str],
    folder: str | Path,
    about: Mapping[str, Any],
    maker: JobEditor,
    *,
    batch: int,
    share: Share = WHOLE,
) -> None:
    """All of a list, for a script: `run_jobs`, and what has become of it, said once for all processes.

    Args:
        wrong: lines of the list that are no jobs, see `ldm.runs.jobs.read_jobs`.
        maker: opens jobs and makes their pictures.

    Raises:
        UserError: see `run_jobs`.
        SomeFailed: lines are wrong, or jobs have failed.
    """
    outcome = run_jobs(jobs, folder, about, maker, batch=batch, share=share)
    if share.rank:
        return
    failed = [*wrong, *outcome.failed]
    print(f"{folder}: {outcome.made} made, {outcome.there} there before, {len(failed)} failed")
    tell_failed(failed, f"of {len(failed) + outcome.made + outcome.there} jobs")


class Results:
    """The pictures of a run, in a folder.

    Args:
        about: what all of them depend on, for JSON.

    Raises:
        UserError: the folder holds results of another run, or cannot be written to.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder, self.record = folder / "results", folder / "run.json"
        self.about = json.loads(json.dumps(about, default=os.fspath))
        if self.record.exists():
            for key, theirs, ours in _differences(read_json(self.record), self.about):
                raise UserError(f"{folder}: holds results with {key} {theirs!r}, not {ours!r}; choose another folder")
        check_writable(folder)

    def clear_up(self) -> None:
        """Remove what a run that was killed has left half-written."""
        folder = self.record.parent
        for file in (*folder.glob(".run.json.[0-9]*.tmp"), *folder.glob("*/.*.png.[0-9]*.tmp")):
            remove_left(file)

    def missing(self, job: Job) -> str | None:
        """The digest of a job whose picture is not there; None if it is.

        Raises:
            UserError: its files cannot be read, or its picture is there and was made from others.
        """
        digest, path = job.digest(), self.path(job)
        if not path.exists():
            return digest
        if read_settings(path).get("digest") != digest:
            raise UserError(f"{path}: was made from other inputs; delete it or choose another folder")
        return None

    def keep(self, job: Job, digest: str, picture: Image.Image) -> None:
        """Write a job's picture; `digest` is from before its files were opened: if they change, it is found out.

        Raises:
            UserError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.record.exists():
            write_json(self.record, self.about)
        save_png(picture, self.path(job), {**self.about, **job.told(), "digest": digest})

    def path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.png"


def _make_missing(jobs: Sequence[Job], results: Results, maker: JobEditor) -> Iterator[str | UserError]:
    """Yield what becomes of each job of a batch: MADE, THERE, or why it failed."""
    missing = [attempt(results.missing, job) for job in jobs]
    if not any(isinstance(digest, str) for digest in missing):
        yield from (error or THERE for error in missing)
        return
    opened = [attempt(maker.open, job) for job in jobs]
    readable = [k for k, one in enumerate(opened) if not isinstance(one, UserError)]
    pictures = attempt(maker.make, [jobs[k] for k in readable], [opened[k] for k in readable]) if readable else []
    pictures = iter([pictures] * len(readable) if isinstance(pictures, UserError) else pictures)
    for job, digest, one in zip(jobs, missing, opened, strict=True):
        picture = one if isinstance(one, UserError) else next(pictures)
        if not isinstance(digest, str):
            yield digest or THERE
        elif isinstance(picture, UserError):
            yield picture
        else:
            results.keep(job, digest, picture)
            yield MADE


def _differences(held: Any, wanted: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, value and value of what differs in two readings of JSON."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for name in {**wanted, **held}:
            yield from _differences(held.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif held != wanted:
        yield key, held, wanted
