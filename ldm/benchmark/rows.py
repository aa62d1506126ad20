"""The rows of a table as folders of pictures, made by the job lists of `ldm.runs`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldm.benchmark.run import Generated, RunContext
from ldm.presets import Settings
from ldm.runs.job_edits import JobEditor
from ldm.runs.jobs import Job
from ldm.runs.work import run_jobs
from ldm.utils.files import read_json


def make_row(
    made: Generated, work: RunContext, name: str, jobs: Sequence[Job], about: Mapping[str, Any], maker: JobEditor
) -> None:
    """Make the pictures of a row that are not there, `<folder>/<name>/results/<job>.png`, and note it in `made`.

    Args:
        about: what all of them depend on.
        maker: opens jobs and makes their pictures.
    """
    folder = work.folder / name
    outcome = run_jobs(jobs, folder, about, maker, batch=work.batch, share=work.share)
    made.folders[name] = folder / "results"
    made.pictures += outcome.made
    made.problems += [f"{name}: {line}" for line in outcome.failed]


def made_before(work: RunContext, rows: Mapping[str, Settings]) -> dict[str, Path]:
    """The folders of rows that hold pictures of the same settings: they can be measured where their model is not there.

    Raises:
        UserError: what one depends on cannot be read.
    """
    found = {}
    for name, settings in rows.items():
        file = work.folder / name / "run.json"
        wanted = json.loads(json.dumps(asdict(settings), default=os.fspath))
        if file.exists() and read_json(file).get("settings") == wanted:
            found[name] = file.parent / "results"
    return found


def records(folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the results of each folder of `Generated` depend on, as `ldm.runs.work` has written it."""
    files = {name: folder.parent / "run.json" for name, folder in folders.items()}
    return {name: read_json(file) for name, file in files.items() if file.exists()}
