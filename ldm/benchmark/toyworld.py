"""The benchmark of editing by example on ToyWorld: fresh scenes, exemplars from other scenes, every metric at once.

With `directions` it is an ablation: whether each row moves its metrics as the paper says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.benchmark.directions import Direction, check_directions, judge_direction, sentence
from ldm.benchmark.entries import make_entry
from ldm.benchmark.report import Report, Row, plot_rows
from ldm.benchmark.rows import make_row, records
from ldm.benchmark.run import Benchmark, Generated, Measured, RunContext, collect_errors
from ldm.benchmark.toyworld_figures import HOLES, Features, Scenes, blob_answers, figures, real_features
from ldm.benchmark.toyworld_statistics import COLUMNS, Found, difference, estimates, statistics
from ldm.checkpoints.open import load
from ldm.editors.exemplar import ExemplarEditor
from ldm.evaluation.extractors import open_extractor
from ldm.evaluation.frechet import check_count
from ldm.evaluation.quality_score import fit_gmm, quality_score
from ldm.presets import EditSettings
from ldm.runs.job_edits import ExemplarJobs
from ldm.runs.jobs import Job
from ldm.runs.kept_results import fingerprint
from ldm.runs.work import editor_about
from ldm.studies.judging import Figures
from ldm.utils.contact_sheet import contact_sheet
from ldm.utils.errors import UserError
from ldm.utils.extras import require
from ldm.utils.files import replacing
from ldm.utils.image import open_image, to_pil, to_tensor
from ldm.utils.mask import mask_picture
from ldm.utils.png import save_png

NOTES = [
    "FID: Fréchet distances of the features of ToyWorld's own CLIP, comparable with no other FID: of the edited holes "
    "to real things, cropped alike, and of whole pictures, of which most was never edited, to real scenes.",
    "Quality Score: the log-likelihood of the features of whole pictures under a mixture of Gaussians fitted to real "
    "scenes; its scale is chosen for ToyWorld.",
    "CLIP score: hole against exemplar, 100 cosine. class, colour, pattern: of what the exemplar shows, what a judge "
    "that was trained on the renderer alone sees in the box.",
    "Copied: how much nearer the edit's pixels are to the exemplar's than to its mirror image's (pose), or, either way "
    "round, than to those of another thing of the same class, colour and pattern (pixels); 100 is the exemplar pasted.",
    "Background: all pixels outside the hole together, as decoded, before the edit is laid into the scene.",
]
DECODED = {"composite": "none", "feather": 0}  # pictures are kept as they are decoded, and laid in to be measured


@dataclass(frozen=True)
class Entry:
    """A row of the benchmark.

    Attributes:
        key: names its folder of results.
        model: a config, with its weights; the `config.yaml` of a training's folder is one.
        settings: what differs from `configs/edit/default.yaml`.
        holes: the kinds that are edited: a `box` always, a `blob` may be.
        train: overrides of the training that makes its model, see `ldm ablation`; none if it is there.
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


class ToyWorld(Benchmark):
    """
    Args:
        rows: an `Entry` each, as mappings.
        count, seed: of the scenes; no training set holds any of them.
        blobs: scenes of which blob-shaped holes are edited, if not as many.
        references: real scenes, which the edits are compared with and the Quality Score's mixture is fitted to.
        components: of that mixture.
        scale: the log-likelihood that a Quality Score of 100 stands for.
        directions: a `Direction` each, as mappings.
        training: the config that the rows' `train` changes; `trainings`, where they end up. The benchmark itself takes
            what is there.
    """

    def __init__(
        self,
        title: str,
        rows: Sequence[Mapping[str, Any]],
        count: int,
        seed: int,
        references: int,
        components: int,
        scale: float,
        blobs: int | None = None,
        directions: Sequence[Mapping[str, Any]] = (),
        training: str | None = None,
        trainings: str | None = None,
    ):
        require("sklearn")  # for the mixture, which is fitted when trainings and edits are done
        self.title, self.training, self.trainings = title, training, trainings
        self.rows = [make_entry(Entry, row, f"rows[{k}]") for k, row in enumerate(rows)]
        self.counts, self.seed, self.references = {"box": count, "blob": blobs or count}, seed, references
        self.components, self.scale = components, scale
        self.directions = [make_entry(Direction, d, f"directions[{k}]") for k, d in enumerate(directions)]
        check_directions(self.directions, [row.key for row in self.rows], [column.key for column in COLUMNS])

    def scenes(self, work: RunContext, hole: str = "box") -> Scenes:
        return Scenes(self.seed, min(self.counts[hole], work.limit or self.counts[hole]))

    def generate(self, work: RunContext) -> Generated:
        made = Generated()
        attempt = collect_errors(made.problems)
        scenes = {hole: self.scenes(work, hole) for hole in {hole for entry in self.rows for hole in entry.holes}}
        most = max(scenes.values(), key=lambda some: some.count)
        files = [write_item(work.folder / "data", i, item) for i, item in enumerate(most.items)]
        for entry in self.rows:
            editor = attempt(entry.name, lambda entry=entry: editor_of(entry, work.device))
            for hole in entry.holes if editor else ():
                jobs = [
                    Job(f"{i:04d}", file["image"], file[hole], (file["exemplar"],), seed=editor.settings.seed + i)
                    for i, file in enumerate(files[: scenes[hole].count])
                ]
                about = editor_about(editor, "full")
                make_row(made, work, f"{entry.key}/{hole}", jobs, about, ExemplarJobs(editor))
        return made

    def measure(self, work: RunContext, folders: Mapping[str, Path]) -> Measured:
        scenes, blob_scenes = self.scenes(work), self.scenes(work, "blob")
        judge, clip = load("toyworld_judge", device="cpu", root="judge"), open_extractor("toyworld_clip")
        drawn = real_features(clip, self.seed, self.references + scenes.count)
        real, unseen = drawn.split(self.references)
        gmm = fit_gmm(real.whole, self.components)

        def found(features: Features, values: Figures | None = None, pictures: Sequence[Image.Image] = ()) -> Found:
            quality = quality_score(gmm.log_likelihood(features.whole), self.scale)
            return Found({**(values or {}), "quality": quality}, features, pictures)

        def edited(entry: Entry) -> Found:
            compositing = EditSettings.read(**entry.settings)
            edits = read_results(folders[f"{entry.key}/box"], scenes.count)
            pictures, features, values = figures(scenes, edits, judge, clip, compositing)
            if "blob" in entry.holes:
                edits = read_results(folders[f"{entry.key}/blob"], blob_scenes.count)
                values["blob"] = blob_answers(blob_scenes, edits, judge, compositing)
            return found(features, values, pictures)

        pictures, features, values = figures(scenes, scenes.pastes(), judge, clip, EditSettings.read(**DECODED))
        del values["background"]  # nothing was decoded
        pastes = found(features, values, pictures)
        columns, problems = statistics(real, values), []
        attempt = collect_errors(problems)
        attempt("FID", partial(check_count, unseen.whole, "scenes"))
        if problems:
            columns = {key: column for key, column in columns.items() if not key.startswith("fid")}
        rows = {
            entry.key: attempt(entry.name, partial(edited, entry))
            for entry in self.rows
            if f"{entry.key}/box" in folders
        }
        measured = {key: row for key, row in rows.items() if row is not None}
        names = {entry.key: entry.name for entry in self.rows}
        shown = {"other scenes, as drawn": found(unseen), "the exemplar pasted": pastes}
        shown |= {names[key]: row for key, row in measured.items()}
        verdicts = [
            judge_direction(
                direction, partial(difference, columns, measured[direction.row], measured[direction.against])
            )
            for direction in self.directions
            if {direction.row, direction.against} <= measured.keys() and direction.claims.keys() <= columns.keys()
        ]
        titles = {column.key: column.title for column in COLUMNS}
        report = Report(
            self.title,
            COLUMNS,
            [Row(name, estimates(row, columns), "here") for name, row in shown.items()],
            {
                "scenes": {"box": scenes.count, "blob": blob_scenes.count, "seed": self.seed, "real": self.references},
                "extractor": clip.about,
                "judge": fingerprint(judge),
                "runs": records(folders),
                "directions": {verdict.direction.name: verdict.overall for verdict in verdicts},
            },
            [*NOTES, *(sentence(verdict, titles) for verdict in verdicts)],
            self._partial(scenes, [name for key, name in names.items() if key not in measured]),
        )
        plots = {
            "figures": partial(plot_rows, report),
            "examples": partial(plot_examples, scenes, {name: row.pictures for name, row in shown.items()}),
        }
        return Measured(report, plots, problems)

    def _partial(self, scenes: Scenes, missing: Sequence[str]) -> str | None:
        parts = [f"{scenes.count} of {self.counts['box']} scenes"] * (scenes.count < self.counts["box"])
        parts += [f"without {', '.join(missing)}"] * bool(missing)
        return "; ".join(parts) or None


def editor_of(entry: Entry, device: torch.device) -> ExemplarEditor:
    """
    Raises:
        UserError: no such config or weights, or it is no exemplar model.
    """
    return ExemplarEditor(load(entry.model, device=device), **(dict(entry.settings) | DECODED))


def write_item(folder: Path, index: int, item: Mapping[str, Any]) -> dict[str, Path]:
    """Write what an edit takes, where it is not there: image, exemplar and a mask for each kind of hole."""
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
    """The first pictures of a folder of results, (3, H, W) in [-1, 1]."""
    return [to_tensor(open_image(folder / f"{i:04d}.png"))[0] for i in range(count)]


EXAMPLES, SIDE = 8, 192  # scenes that are shown; pixels


def plot_examples(scenes: Scenes, rows: Mapping[str, Sequence[Image.Image]], path: Path) -> None:
    """Write a PNG: some scenes, one a line, their exemplars, and what each row of the benchmark made of them.

    Args:
        rows: by name; what has no pictures is left out.
    """
    items = scenes.items[:EXAMPLES]
    columns = {
        "scene": [to_pil(item["image"] * (1 - item["mask"])) for item in items],
        "exemplar": [item["exemplar"] for item in items],
        **{name: pictures[: len(items)] for name, pictures in rows.items() if pictures},
    }
    with replacing(path) as partial:
        contact_sheet(columns, SIDE).save(partial, format="PNG")
