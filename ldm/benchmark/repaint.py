"""RePaint's benchmark (2201.09865, section 5): LPIPS of filled holes, for six kinds of masks and three data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ldm.benchmark.entries import make_entry, mapping, row_settings
from ldm.benchmark.papers import REPAINT
from ldm.benchmark.report import Column, Report, Row, abouts, plot_rows, random_notes
from ldm.benchmark.rows import make_row, records
from ldm.benchmark.run import (
    Attempt,
    Benchmark,
    Generated,
    Measured,
    RunContext,
    collect_errors,
    files_hash,
    open_extractors,
)
from ldm.checkpoints.open import load, load_classifier, precision_of
from ldm.compat.configs import load_config
from ldm.data.images import picture_files
from ldm.editors.repaint import RePaint
from ldm.evaluation.bootstrap import Estimate, mean_estimate
from ldm.evaluation.extractors import LpipsDistance
from ldm.presets import RePaintSettings
from ldm.runs.job_edits import RePaintJobs
from ldm.runs.jobs import Job, read_jobs
from ldm.runs.kept_results import fingerprint
from ldm.runs.work import editor_about
from ldm.utils.checked import checked
from ldm.utils.errors import UserError
from ldm.utils.holes import ALIASES, PAPER, hole_mask
from ldm.utils.image import of_one_size, open_image, picture_size, to_tensor
from ldm.utils.mask import mask_picture, open_mask
from ldm.utils.png import save_png

COLUMNS = [Column(mask, mask.replace("_", " "), "lower", 3) for mask in PAPER]
OFFICIAL = {ours: name for name, ours in ALIASES.items()}  # names of the original's mask folders
NOTES = (
    "All numbers are LPIPS (AlexNet) between the filled picture and the picture that the hole was cut from.",
    "Here known pixels are exact in the result; in the original they are the model's reconstruction.",
)


@checked
class Pictures:
    """A set of pictures and the network that fills their holes.

    Args:
        jobs: a list of jobs (see `ldm.runs.jobs.read_jobs`) with image, and class_id for a class-conditional network.
        model: a config file, or its name.
        checkpoint: the weights, by default those that the config names.
        classifier: weights of a guiding classifier, if any.
    """

    jobs: str
    model: str
    checkpoint: str | None = None
    classifier: str | None = None


class RePaintBenchmark(Benchmark):
    """RePaint's tables.

    Args:
        pictures: name of a table -> fields of `Pictures`; tables named as in the paper show its numbers.
        masks: folder of the original's masks (thick, thin, nn2, ..., white = known), the k-th for the k-th picture;
            null draws others of the same kinds.
        count: number of pictures of a table, from the first.
        precision: see `ldm.load`.
        seed: of the first picture and its drawn mask.
        rows: name -> `edit` (a preset in configs/repaint) and changes to it.
        lpips: weights of LPIPS (AlexNet); null for those in pretrained_models, or "random" for a trial.
        resamples: of the bootstrap.
    """

    def __init__(
        self,
        pictures: Mapping[str, Mapping[str, str | None]],
        masks: str | None,
        count: int,
        precision: str,
        seed: int,
        rows: Mapping[str, Mapping[str, Any]],
        lpips: str | None,
        resamples: int,
    ):
        self.pictures = {
            name: make_entry(Pictures, values, f"pictures.{name}")
            for name, values in mapping(pictures, "pictures").items()
        }
        self.masks, self.count, self.precision, self.seed = masks, count, precision, seed
        self.rows = {
            name: row_settings(RePaintSettings.read, row, f"rows.{name}") for name, row in mapping(rows, "rows").items()
        }
        self.lpips, self.resamples = lpips, resamples

    def generate(self, context: RunContext) -> Generated:
        generated = Generated()
        attempt = collect_errors(generated.problems)
        for name, pictures in self.pictures.items():
            attempt(name, partial(self._generate, generated, context, name, pictures, attempt))
        return generated

    def _generate(
        self, generated: Generated, context: RunContext, name: str, pictures: Pictures, attempt: Attempt
    ) -> None:
        """Fill every mask of a table with every row's settings."""
        node = load_config(pictures.model)
        model = load(node, pictures.checkpoint, context.device, self.precision, name=pictures.model)
        precision = precision_of(model)
        given = {} if pictures.classifier is None else {"classifier": pictures.classifier}
        classifier = load_classifier(given, node, context.device, self.precision)
        guidance = {} if classifier is None else {"classifier": fingerprint(classifier)}
        jobs, wrong = self.jobs(context, pictures)
        generated.problems += [f"{name}: {line}" for line in wrong]
        size = (model.image_size,) * 2
        jobs = [job for job in jobs if attempt(f"{name}: {job.place}", partial(of_one_size, [job.image], size))]
        for row, settings in self.rows.items():
            editor = RePaint(model, settings, classifier)
            about = {**guidance, **editor_about(editor, precision)}
            for mask in PAPER:
                masked = [self.with_mask(job, mask, context.folder / "masks" / name) for job in jobs]
                make_row(generated, context, f"{name}/{row}/{mask}", masked, about, RePaintJobs(editor))

    def jobs(self, context: RunContext, pictures: Pictures) -> tuple[list[Job], list[str]]:
        """Return the jobs of a table, each with its seed, and one line for each job that is wrong."""
        listed, wrong = read_jobs(pictures.jobs, ("image",), ("class_id",))
        first = [replace(job, seed=self.seed + job.number) for job in listed if job.number < self.count]
        return context.some(first), wrong

    def with_mask(self, job: Job, mask: str, folder: Path) -> Job:
        """Write the mask of a job into a folder, and return the job with it."""
        size, k, file = picture_size(job.image), job.number, folder / mask / f"{job.name}.png"
        if self.masks is None:
            hole = hole_mask(mask, size, job.seed)
        else:
            given = picture_files(Path(self.masks) / OFFICIAL[mask])
            if k >= len(given):
                raise UserError(f"{given[0].parent}: found {len(given)} masks, expected {k + 1}, one for each picture")
            hole = open_mask(given[k], size, invert=True, resize=False)
        save_png(mask_picture(hole), file)
        return replace(job, mask=file)

    def measure(self, context: RunContext, folders: Mapping[str, Path]) -> Measured:
        problems: list[str] = []
        attempt = collect_errors(problems)
        networks = open_extractors({"lpips_alex": self.lpips}, context.device, attempt)
        lpips = networks.get("lpips_alex")
        rows, short, pictures_of, masks_of = [], [], {}, {}
        for name, pictures in self.pictures.items():
            rows += [Row(f"{name}: {method}", values, "paper") for method, values in REPAINT.get(name, {}).items()]
            if not any(key.startswith(f"{name}/") for key in folders):
                continue  # `generate` has reported why
            jobs, _ = self.jobs(context, pictures)
            pictures_of[name] = files_hash(job.image for job in jobs)
            masks = [context.folder / "masks" / name / mask / f"{job.name}.png" for mask in PAPER for job in jobs]
            masks_of[name] = files_hash(file for file in masks if file.exists())
            for row, settings in self.rows.items():
                values = {}
                for mask in PAPER:
                    folder = folders.get(f"{name}/{row}/{mask}")
                    there = [job for job in jobs if folder and (folder / f"{job.name}.png").is_file()]
                    if len(there) < self.count:
                        short.append(f"{name}, {row}, {mask}: {len(there)} of {self.count} pictures")
                    if there and lpips:
                        measured = partial(self.lpips_of, lpips, there, folder, f"{name}, {row}, {mask}")
                        values[mask] = attempt(f"{name}, {row}, {mask}", measured)
                note = f"{settings.sampler}, {settings.steps} steps, {settings.calls():,} network calls"
                rows.append(Row(f"{name}: here, {row}", values, "here", note))
        about = {
            "pictures": pictures_of,
            "masks": masks_of,
            "runs": records(folders),
            "networks": abouts(networks),
        }
        report = Report("RePaint: LPIPS", COLUMNS, rows, about, [*NOTES, *random_notes(networks)], few(short))
        return Measured(report, {"figures": partial(plot_rows, report)}, problems)

    def lpips_of(self, lpips: LpipsDistance, jobs: Sequence[Job], folder: Path, desc: str) -> Estimate:
        """Return the mean distance between filled pictures and their originals."""
        found = []
        for job in tqdm(jobs, desc, unit="image", disable=None):
            pair = (to_tensor(open_image(file).convert("RGB")) for file in (folder / f"{job.name}.png", job.image))
            found.append(lpips(*pair))
        return mean_estimate(torch.cat(found), resamples=self.resamples)


def few(short: Sequence[str]) -> str | None:
    """Return why a report is partial: the first of the lines and the number of others."""
    more = f", and {len(short) - 1} more like it" if len(short) > 1 else ""
    return f"{short[0]}{more}" if short else None
