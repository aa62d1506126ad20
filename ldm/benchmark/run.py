"""One run of a benchmark: all processes generate missing pictures, the first one measures and reports."""

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
Attempt = Callable[[str, Callable[[], Any]], Any]  # a name, and a part of the work that may fail
THIS_RUN = "this run"  # the part of a report's `about` that may differ between two runs of the same benchmark


@dataclass(frozen=True)
class RunContext:
    """The folder, device and processes of a run; only `limit` changes its numbers.

    Attributes:
        folder: for results, features and the report.
        limit: number of items of each table to generate and measure; None for all.
        batch: number of pictures generated, or fed to an extractor, at a time.
    """

    folder: Path
    limit: int | None
    batch: int
    device: torch.device
    share: Share

    def some(self, items: Iterable) -> list:
        """Return the items within the limit."""
        return list(items)[: self.limit]


@dataclass
class Generated:
    """The result of generating.

    Attributes:
        folders: by name, those whose pictures may be measured.
        pictures: number of pictures that all processes made in this run.
        problems: one line for each failure.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    pictures: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class Measured:
    """The result of measuring.

    Attributes:
        plots: name -> function that writes a PNG.
        problems: one line for each metric that could not be measured.
    """

    report: Report
    plots: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Benchmark(ABC):
    """A table of a paper, built by a config in `configs/benchmark/`."""

    @abstractmethod
    def generate(self, context: RunContext) -> Generated:
        """Generate this process's share of the missing pictures, and return when all processes have finished."""

    @abstractmethod
    def measure(self, context: RunContext, folders: Mapping[str, Path]) -> Measured:
        """Measure the pictures in the folders of `Generated`."""


def run_benchmark(benchmark: Benchmark, context: RunContext, about: Mapping[str, Any]) -> tuple[list[Path], list[str]]:
    """Run a benchmark in every process, and write its report in the first.

    Args:
        about: what the report depends on besides the benchmark.

    Returns:
        The files written, and all problems; only the first process writes and measures.
    """
    began = time.monotonic()
    generated = benchmark.generate(context)
    if context.share.rank:
        return [], list(dict.fromkeys(generated.problems))
    measured = benchmark.measure(context, generated.folders)
    problems = list(dict.fromkeys([*generated.problems, *measured.problems]))
    this_run = {
        "pictures made": generated.pictures,
        "wall time, s": round(time.monotonic() - began, 1),
        "processes": context.share.world,
        "device": device_name(context.device),
    }
    report = measured.report
    report = replace(
        report,
        about={**about, **report.about, "versions": versions(), "commit": commit(), THIS_RUN: this_run},
        notes=[*report.notes, *(f"**Failed:** {line}" for line in problems)],
        partial=report.partial or (f"{len(problems)} things failed, see below" if problems else None),
    )
    return write_report(report, context.folder, measured.plots), problems


def collect_errors(problems: list[str]) -> Attempt:
    """Return a function that runs a part of the work, and on a `UserError` appends a problem and returns None."""

    def attempt(what: str, part: Callable[[], Any]) -> Any:
        try:
            return part()
        except UserError as error:
            problems.append(f"{what}: {error}")
            return None

    return attempt


def files_hash(files: Iterable[Path]) -> str:
    """Return a hash of the contents of files, in their order; names do not count.

    Raises:
        UserError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(content_hash(file).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python, `ldm` and the libraries that numbers depend on."""
    libraries = {name: installed_version(name) or "not installed" for name in LIBRARIES}
    return {"ldm": __version__, "python": platform.python_version(), **libraries}


def device_name(device: torch.device) -> str:
    """Return a GPU's name or, for another device, its type and the machine's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {platform.machine()}"


def open_extractors(
    weights: Mapping[str, str | None], device: torch.device, attempt: Attempt
) -> dict[str, Extractor | LpipsDistance]:
    """Open the networks of the metrics, by kind; those that cannot be opened are reported through `attempt`."""
    found = {kind: attempt(kind, partial(open_extractor, kind, file, device)) for kind, file in weights.items()}
    return {kind: network for kind, network in found.items() if network is not None}
