"""What the benchmarks of the papers share: pictures by the job lists of `ldm.runs`, networks that measure them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ldm.benchmark.extractors import open_extractor
from ldm.benchmark.run import Attempts, Made, Work
from ldm.evaluation.extractors import Extractor, LpipsDistance
from ldm.runs.jobs import Job
from ldm.runs.work import work_through
from ldm.utils.files import read_json


def make_row(
    made: Made, work: Work, name: str, jobs: Sequence[Job], about: Mapping[str, Any], *how: Callable[..., Any]
) -> None:
    """Make the pictures of a row that are not there, `<folder>/<name>/results/<job>.png`, and note it in `made`.

    Args:
        about: what all of them depend on.
        how: opens a job and makes a batch of those, see `ldm.runs.work.work_through`.
    """
    folder = work.folder / name
    outcome = work_through(jobs, folder, about, *how, batch=work.batch, share=work.share)
    made.folders[name] = folder / "results"
    made.pictures += outcome.made
    made.problems += [f"{name}: {line}" for line in outcome.failed]


def open_extractors(
    weights: Mapping[str, str | None], device: torch.device, attempt: Attempts
) -> dict[str, Extractor | LpipsDistance]:
    """The networks of the metrics by kind, see `ldm.benchmark.extractors`; those that cannot be opened are told of."""
    found = {kind: attempt(kind, partial(open_extractor, kind, file, device)) for kind, file in weights.items()}
    return {kind: network for kind, network in found.items() if network is not None}


def abouts(networks: Mapping[str, Extractor | LpipsDistance]) -> dict[str, dict[str, str]]:
    """All that numbers of networks depend on, by kind, for a report."""
    return {kind: network.about for kind, network in networks.items()}


def random_notes(networks: Mapping[str, Extractor | LpipsDistance]) -> list[str]:
    """A warning for each network of the metrics that has no trained weights."""
    return [
        f"**The weights of {network.name} are random: its numbers are of a trial, and mean nothing.**"
        for network in networks.values()
        if network.about["weights"].startswith("random")
    ]


def records(folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the results of each folder of `Made` depend on, as `ldm.runs.work` has written it."""
    files = {name: folder.parent / "run.json" for name, folder in folders.items()}
    return {name: read_json(file) for name, file in files.items() if file.exists()}
