"""One run of a benchmark: what is missing is made by all processes, measured and reported by the first."""

import hashlib
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ldm import __version__
from ldm.benchmark.report import Report, write_report
from ldm.evaluation.extractors import Extractor, LpipsDistance, open_extractor
from ldm.utils.errors import UserError
from ldm.utils.files import content_hash
from ldm.utils.processes import Share
from ldm.utils.project import commit, installed_version

LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")
LIBRARIES += ("torchmetrics", "open_clip_torch", "timm", "torch-fidelity")
Attempt = Callable[[str, Callable[[], Any]], Any]  # a name, and the part of the work that may fail
THIS_RUN = "this run"  # the part of a report's `about` in which two runs of the same benchmark may differ


@dataclass(frozen=True)
class RunContext:
    """Where and how a benchmark runs; none of it but `limit` changes a number.

    Attributes:
        folder: of results, features and the report.
        limit: items of each table that are made and measured; None for all.
        batch: pictures made, or looked at, at once.
    """

    folder: Path
    limit: int | None
    batch: int
    device: torch.device
    share: Share

    def some(self, items: Iterable) -> list:
        """The items within the limit."""
        return list(items)[: self.limit]


@dataclass
class Generated:
    """What was generated.

    Attributes:
        folders: by name, those whose pictures may be measured.
        pictures: how many all processes made now; those that were there are not counted.
        problems: a line for each thing that failed.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    pictures: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Measured:
    """What was found.

    Attributes:
        plots: name -> writes a PNG.
        problems: a line for each metric that could not be measured.
    """

    report: Report
    plots: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Benchmark(ABC):
    """A table of a paper; a config in `configs/benchmark/` builds it."""

    @abstractmethod
    def generate(self, work: RunContext) -> Generated:
        """Make the pictures that are not there, this process its share; all have been made when it returns."""

    @abstractmethod
    def measure(self, work: RunContext, folders: Mapping[str, Path]) -> Measured:
        """Measure the pictures that are there, in the folders of `Generated`."""


def run_benchmark(benchmark: Benchmark, work: RunContext, about: Mapping[str, Any]) -> list[str]:
    """Run a benchmark and write its report; all processes do.

    Args:
        about: what the report depends on, from outside of the benchmark.

    Returns:
        All problems, in the first process with those of measuring: none if the benchmark is whole.
    """
    began = time.monotonic()
    made = benchmark.generate(work)
    if work.share.rank:
        return list(dict.fromkeys(made.problems))
    measured = benchmark.measure(work, made.folders)
    problems = list(dict.fromkeys([*made.problems, *measured.problems]))
    this_run = {
        "pictures made": made.pictures,
        "wall time, s": round(time.monotonic() - began, 1),
        "processes": work.share.world,
        "device": device_name(work.device),
    }
    report = measured.report
    report = replace(
        report,
        about={**about, **report.about, "versions": versions(), "commit": commit(), THIS_RUN: this_run},
        notes=[*report.notes, *(f"**Failed:** {line}" for line in problems)],
        partial=report.partial or (f"{len(problems)} things failed, see below" if problems else None),
    )
    for path in write_report(report, work.folder, measured.plots):
        print(path)
    return problems


def collect_errors(problems: list[str]) -> Attempt:
    """Return a function that runs a part of the work: a `UserError` becomes a line among the problems, and None."""

    def attempt(what: str, part: Callable[[], Any]) -> Any:
        try:
            return part()
        except UserError as error:
            problems.append(f"{what}: {error}")
            return None

    return attempt


def files_hash(files: Iterable[Path]) -> str:
    """Of what files hold, in their order; their names do not count.

    Raises:
        UserError: one cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(content_hash(file).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    libraries = {name: installed_version(name) or "not installed" for name in LIBRARIES}
    return {"ldm": __version__, "python": platform.python_version(), **libraries}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"


def open_extractors(
    weights: Mapping[str, str | None], device: torch.device, attempt: Attempt
) -> dict[str, Extractor | LpipsDistance]:
    """The networks of the metrics by kind, see `open_extractor`; those that cannot be opened are told of."""
    found = {kind: attempt(kind, partial(open_extractor, kind, file, device)) for kind, file in weights.items()}
    return {kind: network for kind, network in found.items() if network is not None}
