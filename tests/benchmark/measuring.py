"""A benchmark run by its code, and what its report says."""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ldm.benchmark.run import RunContext, run_benchmark
from ldm.config import build
from ldm.utils.processes import Share


def measure(config: DictConfig, folder: Path, limit: int | None = None, **changes) -> tuple[list[str], dict]:
    """The problems and the report of a config with other parameters."""
    config = OmegaConf.merge(config, {"params": {"resamples": 20, **changes}})
    work = RunContext(folder, limit, 2, torch.device("cpu"), Share())
    _, problems = run_benchmark(build(config), work, {})
    return problems, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def ours(report: dict) -> dict[str, dict]:
    """Values by row."""
    return {row["name"]: row["values"] for row in report["rows"] if row["source"] == "here"}


def papers(report: dict) -> dict[str, dict]:
    return {row["name"]: row["values"] for row in report["rows"] if row["source"] == "paper"}
