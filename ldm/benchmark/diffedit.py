"""DiffEdit's benchmark (2210.11427, section 4): distance of edits to their input against distance to real pictures of
the target, over encode ratios.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.benchmark.entries import ModelConfig, make_entry, mapping, row_settings
from ldm.benchmark.papers import DIFFEDIT
from ldm.benchmark.report import Column, Report, Row, abouts, random_notes
from ldm.benchmark.rows import made_before, make_row, records
from ldm.benchmark.run import Benchmark, Generated, Measured, RunContext, collect_errors, files_hash, open_extractors
from ldm.checkpoints.open import precision_of
from ldm.data.images import array_to_tensor, centre_square, is_picture, read_picture
from ldm.editors.diffedit import DiffEdit
from ldm.evaluation.bootstrap import Estimate, mean_estimate
from ldm.evaluation.extractors import Extractor, LpipsDistance
from ldm.evaluation.feature_cache import FeatureCache, features_of
from ldm.evaluation.frechet import class_frechet
from ldm.presets import DiffEditSettings
from ldm.runs.jobs import Job, read_jobs
from ldm.runs.work import editor_about
from ldm.studies.tradeoff import METHODS, edit_by, encode_both_ways
from ldm.utils.errors import UserError
from ldm.utils.files import replacing
from ldm.utils.image import open_image, to_pil, to_tensor

COLUMNS = (
    Column("lpips", "LPIPS x 100, to the input", "lower", 1),
    Column("csfid", "CSFID, to the target", "lower", 1),
)
NOTES = (
    "CSFID is the mean over target classes of the simplified Fréchet distance (variances only, as in FlexIT, whose"
    " protocol this is) between Inception features of edits and of real pictures of the class.",
    "The paper draws curves, and states numbers only for two points at an encode ratio of 0.8. Its ImageNet network is"
    " class-conditional, this one follows prompts: compare orders, not sizes.",
    "Intervals of LPIPS are over edits, those of CSFID over target classes.",
    "Edits with an empty mask are the autoencoder's reconstruction of the input, and count.",
)


class Opened(NamedTuple):
    """An edit's job with its picture, (1, 3, S, S) in [-1, 1]."""

    picture: Tensor
    job: Job


class DiffEditBenchmark(Benchmark):
    """The trade-off of DiffEdit and of the methods that lack one of its parts.

    Args:
        edits: a list of jobs (see `ldm.runs.jobs.read_jobs`) with image, prompt and optionally source_prompt. Edits
            with the same prompt form a target class.
        real: a folder with a subfolder of real pictures for each prompt, named like the prompt.
        model: fields of a `ModelConfig`, for a text-to-image model; pictures are cropped square to its size.
        settings: changes to configs/diffedit/default.yaml.
        methods: keys of `ldm.studies.tradeoff.METHODS`.
        ratios: encode ratios.
        extractors: `inception` and `lpips_alex` or `lpips_vgg` -> weights; null for those in pretrained_models, or
            "random" for a trial.
        resamples: of the bootstrap, over edits for LPIPS and over classes for CSFID.
    """

    def __init__(
        self,
        edits: str,
        real: str,
        model: Mapping[str, Any],
        settings: Mapping[str, Any],
        methods: Sequence[str],
        ratios: Sequence[float],
        extractors: Mapping[str, str | None],
        resamples: int,
    ):
        if unknown := [method for method in methods if method not in METHODS]:
            raise UserError(f"method {unknown[0]!r}: expected one of {', '.join(METHODS)}")
        self.edits, self.real, self.extractors, self.resamples = edits, Path(real), extractors, resamples
        self.model = make_entry(ModelConfig, model, "model")
        common = mapping(settings, "settings")
        at = {
            ratio: row_settings(DiffEditSettings.read, {**common, "encode_ratio": ratio}, "settings")
            for ratio in ratios
        }
        self.points = {
            f"{re.sub(r'[^a-z]+', '_', method.lower())}_{ratio:g}": (method, changed)
            for method in methods
            for ratio, changed in at.items()
        }

    def jobs(self) -> tuple[list[Job], list[str]]:
        """Return the edits, and one line for each that is wrong."""
        return read_jobs(self.edits, ("image", "prompt"), ("source_prompt", "seed"))

    def generate(self, context: RunContext) -> Generated:
        generated = Generated()
        jobs, generated.problems = self.jobs()
        model = collect_errors(generated.problems)("model", partial(self.model.load, context.device))
        if model is None:
            generated.folders = made_before(context, {name: settings for name, (_, settings) in self.points.items()})
            return generated
        precision = precision_of(model)
        for name, (method, settings) in self.points.items():
            editor = DiffEdit(model, settings)
            about = {"method": method, **editor_about(editor, precision)}
            make_row(generated, context, name, context.some(jobs), about, SquareEdits(editor, method))
        return generated

    def measure(self, context: RunContext, folders: Mapping[str, Path]) -> Measured:
        problems: list[str] = []
        attempt = collect_errors(problems)
        networks = open_extractors(self.extractors, context.device, attempt)
        lpips = networks.get("lpips_vgg") or networks.get("lpips_alex")
        jobs, _ = self.jobs()
        rows = [Row(f"{method}, 0.8", values, "paper") for method, values in DIFFEDIT.items()]
        fewest, some = len(jobs), context.some(jobs)
        real = attempt("real pictures", partial(self.real_files, {job.prompt for job in some})) or {}
        for name, (method, settings) in self.points.items():
            if not (folder := folders.get(name)):
                continue
            there = [job for job in some if (folder / f"{job.name}.png").is_file()]
            fewest, title = min(fewest, len(there)), f"{method}, {settings.encode_ratio:g}"
            values = {}
            if there and lpips:
                values["lpips"] = attempt(f"{title}, LPIPS", partial(self.lpips, lpips, there, folder, title))
            if there and real and (inception := networks.get("inception")):
                counts = Counter(job.prompt for job in there)
                thick = {prompt: files for prompt, files in real.items() if min(len(files), counts[prompt]) > 1}
                if thin := sorted(counts.keys() - thick):
                    problems.append(
                        f"CSFID: {len(thin)} of {len(counts)} prompts left out; the first, {thin[0]!r}, has "
                        f"{counts[thin[0]]} edits and {len(real[thin[0]])} real pictures, expected 2 or more of each"
                    )
                if thick:
                    measured = partial(self.csfid, inception, there, thick, folder, context)
                    values["csfid"] = attempt(f"{title}, CSFID", measured)
            rows.append(Row(title, values, "here"))
        about = {
            "pictures": files_hash(job.image for job in some),
            "real pictures": files_hash(chain(*real.values())),
            "runs": records(folders),
            "networks": abouts(networks),
        }
        short = f"{fewest} of {len(jobs)} edits" if fewest < len(jobs) else None
        report = Report("DiffEdit: trade-off", COLUMNS, rows, about, [*NOTES, *random_notes(networks)], short)
        return Measured(report, {"curve": partial(plot_curve, report)}, problems)

    def lpips(self, lpips: LpipsDistance, jobs: Sequence[Job], folder: Path, desc: str) -> Estimate:
        """Return 100 times the mean distance between edits and their inputs."""
        found = []
        for job in tqdm(jobs, desc, unit="image", disable=None):
            edited = to_tensor(open_image(folder / f"{job.name}.png"))
            found.append(lpips(edited, squared(job, edited.shape[-1]).picture))
        return mean_estimate(100 * torch.cat(found), resamples=self.resamples)

    def csfid(
        self,
        inception: Extractor,
        jobs: Sequence[Job],
        real: Mapping[str, Sequence[Path]],
        folder: Path,
        context: RunContext,
    ) -> Estimate:
        """Return the mean over prompts of the distance between their edits and their real pictures."""
        classes = [prompt for prompt in real if any(job.prompt == prompt for job in jobs)]
        jobs = [job for job in jobs if job.prompt in classes]
        seen = partial(features_of, inception, cache=FeatureCache(context.folder / "features"), batch=context.batch)
        distances = class_frechet(
            seen([folder / f"{job.name}.png" for job in jobs]),
            torch.tensor([classes.index(job.prompt) for job in jobs]),
            seen([file for prompt in classes for file in real[prompt]]),
            torch.tensor([k for k, prompt in enumerate(classes) for _ in real[prompt]]),
        )
        return mean_estimate(distances, resamples=self.resamples)

    def real_files(self, prompts: Collection[str]) -> dict[str, list[Path]]:
        """List the real pictures of each prompt, in the folder named like it; a missing folder gives an empty list.

        Raises:
            UserError: the parent folder does not exist.
        """
        if not self.real.is_dir():
            raise UserError(f"{self.real}: no such folder")
        folders = {folder.name: folder for folder in self.real.iterdir()}
        found = {prompt: folders[prompt].rglob("*") if prompt in folders else () for prompt in sorted(prompts)}
        return {prompt: sorted(file for file in files if is_picture(file.name)) for prompt, files in found.items()}


def squared(job: Job, size: int) -> Opened:
    """Read the central square of a job's picture, scaled to the model's size."""
    return Opened(array_to_tensor(centre_square(read_picture(job.image), size))[None], job)


@dataclass(frozen=True)
class SquareEdits:
    """Edits the central squares of jobs' pictures by one of METHODS, without compositing, as in the paper."""

    editor: DiffEdit
    method: str

    def open(self, job: Job) -> Opened:
        return squared(job, self.editor.model.image_size)

    def make(self, jobs: Sequence[Job], requests: Sequence[Opened]) -> list[Image.Image]:
        settings, pictures = self.editor.settings, torch.cat([each.picture for each in requests])
        targets = [job.prompt for job in jobs]
        seeds = [settings.seed if job.seed is None else job.seed for job in jobs]
        encoded, mask = encode_both_ways(self.editor, pictures, settings.encode_ratio, seeds), None
        if METHODS[self.method][1]:  # inside a mask
            sources = [job.source_prompt or "" for job in jobs]
            mask = self.editor.infer_mask(pictures, sources, targets, seeds=seeds).latent
        edited = edit_by(self.editor, self.method, encoded, mask, targets)
        return [to_pil(picture, settings.rounding) for picture in edited]


def plot_curve(report: Report, path: Path) -> None:
    """Write a PNG with a curve for each method over encode ratios, and the paper's points.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(7, 5), dpi=80, layout="constrained")
    axes = figure.subplots()
    curves: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for row in report.rows:
        x, y = (getattr(value := row.values.get(key), "value", value) for key in ("lpips", "csfid"))
        if x is not None and y is not None:
            method, _, ratio = row.name.rpartition(", ")
            curves.setdefault((method, row.source), []).append((x, y, ratio))
    for (method, source), points in curves.items():
        style = {"marker": "o"} if source == "here" else {"marker": "*", "linestyle": "none", "color": "0.5"}
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], label=f"{method} ({source})", **style)
        for x, y, ratio in points:
            axes.annotate(ratio, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="LPIPS x 100 to the input", ylabel="CSFID to the target", title="numbers: encode ratio")
    if curves:
        axes.legend()
    with replacing(path) as partial_file:
        figure.savefig(partial_file, format="png")
