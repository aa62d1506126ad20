"""The rows of a table as folders of pictures, generated from job lists by `ldm.runs`."""

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
    generated: Generated,
    context: RunContext,
    name: str,
    jobs: Sequence[Job],
    about: Mapping[str, Any],
    maker: JobEditor,
) -> None:
    """Generate the missing pictures of a row, `<folder>/<name>/results/<job>.png`, and record them in `generated`.

    Args:
        about: what all pictures depend on.
    """
    folder = context.folder / name
    outcome = run_jobs(jobs, folder, about, maker, batch=context.batch, share=context.share)
    generated.folders[name] = folder / "results"
    generated.pictures += outcome.made
    generated.problems += [f"{name}: {line}" for line in outcome.failed]


def made_before(context: RunContext, rows: Mapping[str, Settings]) -> dict[str, Path]:
    """Return the folders of rows generated with the same settings: these can be measured without the model.

    Raises:
        UserError: the record of a row cannot be read.
    """
    found = {}
    for name, settings in rows.items():
        file = context.folder / name / "run.json"
        wanted = json.loads(json.dumps(asdict(settings), default=os.fspath))
        if file.exists() and read_json(file).get("settings") == wanted:
            found[name] = file.parent / "results"
    return found


def records(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Read the records that `ldm.runs.work` wrote beside the folders of `Generated`."""
    files = {name: folder.parent / "run.json" for name, folder in folders.items()}
    return {name: read_json(file) for name, file in files.items() if file.exists()}
