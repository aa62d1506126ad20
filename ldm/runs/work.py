"""Processing of a list of jobs in batches, by one or several processes; a run that was killed can be continued."""

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
from ldm.utils.errors import UserError, attempt
from ldm.utils.files import read_json, remove_left, write_json
from ldm.utils.png import read_settings, save_png
from ldm.utils.processes import Share, gather, wait_for_all

MADE, THERE = "made", "there"
WHOLE = Share()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a list of jobs, over all processes.

    Attributes:
        made: number of pictures made in this run.
        there: number of pictures that existed before.
        failed: one line for each job that failed, in the order of the list.
    """

    made: int
    there: int
    failed: list[str]


def editor_about(editor: Editor, precision: str) -> dict[str, Any]:
    """Return what an editor's results depend on, for `run_jobs`: everything about its model except its name."""
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
    """Make this process's share of the missing pictures of jobs, `folder/results/<name>.png`.

    Pictures are written atomically, with everything they depend on inside, and existing ones are kept. Batches depend
    only on positions in `jobs` (so a wrong row that is corrected shifts those after it): a batch that lacks some
    pictures is made as a whole, and only the missing ones are written. A run that is killed and repeated, by any number
    of processes, therefore produces the same bytes as an uninterrupted one. In batches of the same size a row is the
    same bit for bit whatever the other rows are; with another size or number of threads, sums are rounded differently
    (on a CPU by 1e-6 of a network's output).

    Args:
        about: what all pictures depend on besides their jobs, for JSON; stored with `batch` in `folder/run.json`.
        maker: opens jobs and makes their pictures.
        batch: number of jobs in a batch; fewer at the list's end, and where some could not be opened.

    Returns:
        The outcome, the same in every process, after all have finished. It includes jobs that failed.

    Raises:
        UserError: the folder contains results of another run, or is not writable.
    """
    results = Results(Path(folder), {**about, "batch": batch})
    if share.rank == 0:
        results.clear_up()
    wait_for_all(share)  # no process writes before all have checked the folder
    mine = share.part([range(first, min(first + batch, len(jobs))) for first in range(0, len(jobs), batch)])
    counts, failed = Counter(), {}
    hidden = True if share.rank else None  # None: hidden without a terminal
    with tqdm(total=sum(map(len, mine)), desc="pictures", unit="picture", disable=hidden) as bar:
        for places in mine:
            batch_of = [jobs[place] for place in places]
            for place, job, result in zip(places, batch_of, _make_missing(batch_of, results, maker), strict=True):
                if isinstance(result, UserError):
                    failed[place] = f"{job.place or job.name}: {result}"
                    bar.set_postfix(failed=len(failed))
                else:
                    counts[result] += 1
            bar.update(len(places))
    parts = gather((counts, failed), share)
    counts = sum((part for part, _ in parts), Counter())
    failed = {place: line for _, part in parts for place, line in part.items()}
    return Outcome(counts[MADE], counts[THERE], [failed[place] for place in sorted(failed)])


class Results:
    """The pictures of a run, in a folder.

    Args:
        about: what all pictures depend on, for JSON.

    Raises:
        UserError: the folder contains results of another run, or is not writable.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder, self.record = folder / "results", folder / "run.json"
        self.about = json.loads(json.dumps(about, default=os.fspath))
        if self.record.exists():
            for key, theirs, ours in _differences(read_json(self.record), self.about):
                raise UserError(f"{folder}: contains results with {key} {theirs!r}, not {ours!r}; use another folder")
        check_writable(folder)

    def clear_up(self) -> None:
        """Remove the temporary files of a run that was killed."""
        folder = self.record.parent
        for file in (*folder.glob(".run.json.[0-9]*.tmp"), *folder.glob("*/.*.png.[0-9]*.tmp")):
            remove_left(file)

    def missing(self, job: Job) -> str | None:
        """Return the digest of a job whose picture is missing, None if it exists.

        Raises:
            UserError: a file cannot be read, or the picture was made from other inputs.
        """
        digest, path = job.digest(), self.path(job)
        if not path.exists():
            return digest
        if read_settings(path).get("digest") != digest:
            raise UserError(f"{path}: made from other inputs; delete it or use another folder")
        return None

    def keep(self, job: Job, digest: str, picture: Image.Image) -> None:
        """Write a job's picture.

        Args:
            digest: computed before the job's files were opened, so that a later change of a file is detected.

        Raises:
            UserError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.record.exists():
            write_json(self.record, self.about)
        save_png(picture, self.path(job), {**self.about, **job.told(), "digest": digest})

    def path(self, job: Job) -> Path:
        """Return the path of a job's picture."""
        return self.folder / f"{job.name}.png"


def _make_missing(jobs: Sequence[Job], results: Results, maker: JobEditor) -> Iterator[str | UserError]:
    """Yield the result of each job of a batch: MADE, THERE, or the error."""
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
    """Yield the dotted key and both values of each difference between two JSON values."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for name in {**wanted, **held}:
            yield from _differences(held.get(name), wanted.get(name), f"{key}.{name}" if key else name)
    elif held != wanted:
        yield key, held, wanted
