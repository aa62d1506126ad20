"""The benchmark of editing by example on ToyWorld: fresh scenes, exemplars from other scenes, all metrics.

With `directions` it is an ablation, which tests whether each row moves its metrics as the paper claims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.benchmark.directions import Direction, Verdict, check_directions, judge_direction, sentence
from ldm.benchmark.entries import make_entry
from ldm.benchmark.report import Report, Row, plot_rows
from ldm.benchmark.rows import make_row, records
from ldm.benchmark.run import Benchmark, Generated, Measured, RunContext, collect_errors
from ldm.benchmark.toyworld_figures import HOLES, Features, Scenes, blob_answers, figures, real_features
from ldm.benchmark.toyworld_statistics import COLUMNS, Found, Statistic, difference, estimates, statistics
from ldm.checkpoints.open import load
from ldm.editors.exemplar import ExemplarEditor
from ldm.evaluation.extractors import Extractor, open_extractor
from ldm.evaluation.frechet import check_count
from ldm.evaluation.quality_score import Gmm, fit_gmm, quality_score
from ldm.presets import EditSettings
from ldm.runs.job_edits import ExemplarJobs
from ldm.runs.jobs import Job
from ldm.runs.kept_results import fingerprint
from ldm.runs.work import editor_about
from ldm.studies.judging import Figures
from ldm.toyworld.judge import Judge
from ldm.utils.checked import checked
from ldm.utils.contact_sheet import contact_sheet
from ldm.utils.errors import UserError
from ldm.utils.extras import require
from ldm.utils.files import replacing
from ldm.utils.image import open_image, to_pil, to_tensor
from ldm.utils.mask import mask_picture
from ldm.utils.png import save_png

NOTES = [
    "FID: Fréchet distances between features of ToyWorld's own CLIP, not comparable with any other FID: from edited "
    "holes to real things cropped in the same way, and from whole pictures, most of which was never edited, to real "
    "scenes.",
    "Quality Score: the log-likelihood of the features of whole pictures under a mixture of Gaussians fitted to real "
    "scenes; its scale is chosen for ToyWorld.",
    "CLIP score: 100 times the cosine between hole and exemplar. class, colour, pattern: how often a judge, trained "
    "only on the renderer, sees in the box what the exemplar shows.",
    "Copied: how much closer the edit's pixels are to the exemplar's than to its mirror image's (pose), or, in either "
    "orientation, than to those of another thing of the same class, colour and pattern (pixels); 100 is the exemplar "
    "pasted.",
    "Background: PSNR of all pixels outside the hole, pooled, as decoded, before compositing.",
]
DECODED = {"composite": "none", "feather": 0}  # pictures are kept as decoded, and composited when they are measured


@checked
class RowConfig:
    """A row of the benchmark.

    Attributes:
        key: names its folder of results.
        model: a config, with its weights; the `config.yaml` of a training's folder is one.
        settings: what differs from `configs/edit/default.yaml`.
        holes: the kinds of holes that are edited: `box`, or `box` and `blob`.
        train: overrides of the training that makes its model, see `ldm ablation`; empty if the model ships.
    """

    key: str
    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    holes: Sequence[str] = tuple(HOLES)
    train: Sequence[str] = ()

    def __post_init__(self):
        if "box" not in self.holes or not set(self.holes) <= set(HOLES):
            raise UserError(f"row {self.key}: holes {list(self.holes)}, expected box, or box and blob")


@checked
class QualityConfig:
    """The Quality Score: a mixture of `components` Gaussians, and the log-likelihood that scores 100."""

    components: int
    scale: float


@checked
class TrainingConfig:
    """The training config that the rows' `train` changes, and the folder of the trained models."""

    config: str
    folder: str


@dataclass(frozen=True)
class Instruments:
    """The networks that measure, and the mixture of the Quality Score."""

    judge: Judge
    clip: Extractor
    gmm: Gmm
    scale: float

    def found(self, features: Features, values: Figures | None = None, pictures: Sequence[Image.Image] = ()) -> Found:
        """Return what was measured of pictures, with their Quality Scores added."""
        quality = quality_score(self.gmm.log_likelihood(features.whole), self.scale)
        return Found({**(values or {}), "quality": quality}, features, pictures)

    def pasted(self, scenes: Scenes) -> Found:
        """Measure each exemplar pasted into its hole."""
        settings = EditSettings.read(**DECODED)
        pictures, features, values = figures(scenes, scenes.pastes(), self.judge, self.clip, settings)
        del values["background"]  # nothing was decoded
        return self.found(features, values, pictures)

    def edited(self, row: RowConfig, scenes: Mapping[str, Scenes], folders: Mapping[str, Path]) -> Found:
        """Measure the edits of a row.

        Args:
            scenes: by kind of hole.
            folders: those of `Generated`.
        """
        compositing = EditSettings.read(**row.settings)
        edits = read_results(folders[f"{row.key}/box"], scenes["box"].count)
        pictures, features, values = figures(scenes["box"], edits, self.judge, self.clip, compositing)
        if "blob" in row.holes:
            edits = read_results(folders[f"{row.key}/blob"], scenes["blob"].count)
            values["blob"] = blob_answers(scenes["blob"], edits, self.judge, compositing)
        return self.found(features, values, pictures)


class ToyWorld(Benchmark):
    """The benchmark on ToyWorld.

    Args:
        rows: mappings of the fields of a `RowConfig`.
        count, seed: of the scenes; no training set contains any of them.
        references: number of real scenes, which edits are compared with and the Quality Score's mixture is fitted to.
        quality: fields of a `QualityConfig`.
        blobs: number of scenes with blob-shaped holes, by default `count`.
        directions: mappings of the fields of a `Direction`.
        training: fields of a `TrainingConfig`, for `ldm ablation`; the benchmark itself uses the models that are there.
    """

    def __init__(
        self,
        title: str,
        rows: Sequence[Mapping[str, Any]],
        count: int,
        seed: int,
        references: int,
        quality: Mapping[str, Any],
        blobs: int | None = None,
        directions: Sequence[Mapping[str, Any]] = (),
        training: Mapping[str, Any] | None = None,
    ):
        require("sklearn")  # fail now: the mixture is fitted after trainings and edits
        self.title = title
        self.rows = [make_entry(RowConfig, row, f"rows[{k}]") for k, row in enumerate(rows)]
        self.counts, self.seed, self.references = {"box": count, "blob": blobs or count}, seed, references
        self.quality = make_entry(QualityConfig, quality, "quality")
        self.training = None if training is None else make_entry(TrainingConfig, training, "training")
        self.directions = [make_entry(Direction, d, f"directions[{k}]") for k, d in enumerate(directions)]
        check_directions(self.directions, [row.key for row in self.rows], [column.key for column in COLUMNS])

    def scenes(self, context: RunContext, hole: str = "box") -> Scenes:
        """Return the scenes of a kind of hole, within the run's limit."""
        return Scenes(self.seed, min(self.counts[hole], context.limit or self.counts[hole]))

    def generate(self, context: RunContext) -> Generated:
        generated = Generated()
        attempt = collect_errors(generated.problems)
        scenes = {hole: self.scenes(context, hole) for hole in {hole for row in self.rows for hole in row.holes}}
        most = max(scenes.values(), key=lambda some: some.count)
        files = [write_item(context.folder / "data", i, item) for i, item in enumerate(most.items)]
        for row in self.rows:
            editor = attempt(row.name, partial(editor_of, row, context.device))
            for hole in row.holes if editor else ():
                jobs = [
                    Job(f"{i:04d}", file["image"], file[hole], (file["exemplar"],), seed=editor.settings.seed + i)
                    for i, file in enumerate(files[: scenes[hole].count])
                ]
                about = editor_about(editor, "full")
                make_row(generated, context, f"{row.key}/{hole}", jobs, about, ExemplarJobs(editor))
        return generated

    def measure(self, context: RunContext, folders: Mapping[str, Path]) -> Measured:
        scenes = {hole: self.scenes(context, hole) for hole in HOLES}
        judge, clip = load("toyworld_judge", device="cpu", root="judge"), open_extractor("toyworld_clip")
        drawn = real_features(clip, self.seed, self.references + scenes["box"].count)
        real, unseen = drawn.split(self.references)
        instruments = Instruments(judge, clip, fit_gmm(real.whole, self.quality.components), self.quality.scale)

        pastes = instruments.pasted(scenes["box"])
        columns, problems = statistics(real, pastes.figures), []
        attempt = collect_errors(problems)
        attempt("FID", partial(check_count, unseen.whole, "scenes"))
        if problems:
            columns = {key: column for key, column in columns.items() if not key.startswith("fid")}
        rows = {
            row.key: attempt(row.name, partial(instruments.edited, row, scenes, folders))
            for row in self.rows
            if f"{row.key}/box" in folders
        }
        measured = {key: found for key, found in rows.items() if found is not None}
        names = {row.key: row.name for row in self.rows}
        shown = {"other scenes, as drawn": instruments.found(unseen), "the exemplar pasted": pastes}
        shown |= {names[key]: found for key, found in measured.items()}
        verdicts = self._verdicts(columns, measured)
        titles = {column.key: column.title for column in COLUMNS}
        counts = {hole: some.count for hole, some in scenes.items()}
        report = Report(
            self.title,
            COLUMNS,
            [Row(name, estimates(found, columns), "here") for name, found in shown.items()],
            {
                "scenes": {**counts, "seed": self.seed, "real": self.references},
                "extractor": clip.about,
                "judge": fingerprint(judge),
                "runs": records(folders),
                "directions": {verdict.direction.name: verdict.overall for verdict in verdicts},
            },
            [*NOTES, *(sentence(verdict, titles) for verdict in verdicts)],
            self._partial(scenes["box"], [name for key, name in names.items() if key not in measured]),
        )
        plots = {
            "figures": partial(plot_rows, report),
            "examples": partial(plot_examples, scenes["box"], {name: found.pictures for name, found in shown.items()}),
        }
        return Measured(report, plots, problems)

    def _verdicts(self, columns: Mapping[str, Statistic], measured: Mapping[str, Found]) -> list[Verdict]:
        """Judge the directions whose rows and columns were measured."""
        return [
            judge_direction(each, partial(difference, columns, measured[each.row], measured[each.against]))
            for each in self.directions
            if {each.row, each.against} <= measured.keys() and each.claims.keys() <= columns.keys()
        ]

    def _partial(self, scenes: Scenes, missing: Sequence[str]) -> str | None:
        parts = [f"{scenes.count} of {self.counts['box']} scenes"] * (scenes.count < self.counts["box"])
        parts += [f"without {', '.join(missing)}"] * bool(missing)
        return "; ".join(parts) or None


def editor_of(row: RowConfig, device: torch.device) -> ExemplarEditor:
    """Return the editor of a row.

    Raises:
        UserError: there is no such config or weights file, or it is not an exemplar model.
    """
    return ExemplarEditor(load(row.model, device=device), **(dict(row.settings) | DECODED))


def write_item(folder: Path, index: int, item: Mapping[str, Any]) -> dict[str, Path]:
    """Write the inputs of an edit unless they exist: image, exemplar and a mask for each kind of hole."""
    pictures = {
        "image": to_pil(item["image"]),
        "exemplar": item["exemplar"],
        **{hole: mask_picture(item[key][None]) for hole, key in HOLES.items()},
    }
    files = {name: folder / name / f"{index:04d}.png" for name in pictures}
    for name, file in files.items():
        if not file.exists():
            save_png(pictures[name], file)
    return files


def read_results(folder: Path, count: int) -> list[Tensor]:
    """Read the first `count` pictures of a folder of results, (3, H, W) in [-1, 1]."""
    return [to_tensor(open_image(folder / f"{i:04d}.png"))[0] for i in range(count)]


EXAMPLES, SIDE = 8, 192  # number of scenes shown; side of a picture in pixels


def plot_examples(scenes: Scenes, rows: Mapping[str, Sequence[Image.Image]], path: Path) -> None:
    """Write a PNG of some scenes, one per line, with their exemplars and each row's edits.

    Args:
        rows: pictures by row name; rows without pictures are left out.
    """
    items = scenes.items[:EXAMPLES]
    columns = {
        "scene": [to_pil(item["image"] * (1 - item["mask"])) for item in items],
        "exemplar": [item["exemplar"] for item in items],
        **{name: pictures[: len(items)] for name, pictures in rows.items() if pictures},
    }
    with replacing(path) as partial:
        contact_sheet(columns, SIDE).save(partial, format="PNG")
