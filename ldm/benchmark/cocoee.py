"""Paint by Example's benchmark (2211.13227, section 5): 3,500 edits of COCO's val2017, COCOEE.

Folders are laid out as in the original, see `ldm.benchmark.layout`. The real pictures are those of COCO's test2017,
made square by `ldm create-square-gt-for-fid`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.benchmark.cocoee_figures import ItemResults
from ldm.benchmark.entries import ModelConfig, make_entry, mapping, row_settings
from ldm.benchmark.layout import Item, read_test_bench
from ldm.benchmark.papers import COCOEE, COCOEE_LEADERBOARD
from ldm.benchmark.report import Column, Report, Row, Value, abouts, plot_rows, random_notes
from ldm.benchmark.rows import made_before, make_row, records
from ldm.benchmark.run import Benchmark, Generated, Measured, RunContext, collect_errors, files_hash, open_extractors
from ldm.checkpoints.open import precision_of
from ldm.data.images import picture_files
from ldm.editors.exemplar import ExemplarEditor
from ldm.evaluation.bootstrap import Estimate, bootstrap, mean_estimate
from ldm.evaluation.extractors import Extractor, LpipsDistance
from ldm.evaluation.feature_cache import FeatureCache, features_of
from ldm.evaluation.frechet import frechet_estimate
from ldm.evaluation.metrics import pooled_psnr
from ldm.evaluation.quality_score import open_gmm, quality_score
from ldm.presets import EditSettings
from ldm.runs.job_edits import ExemplarJobs
from ldm.runs.jobs import Job
from ldm.runs.work import editor_about

COLUMNS = (
    Column("fid_clip", "FID (CLIP ViT-B/32)", "lower"),
    Column("qs", "Quality Score", "higher"),
    Column("clip", "CLIP score, original's crop", "higher"),
    Column("clip_exact", "CLIP score, exact crop", "higher"),
    Column("fid_inception", "FID (Inception)", "lower"),
    Column("clip_fg", "CLIP, box", "higher"),
    Column("dino_fg", "DINO, box", "higher"),
    Column("lpips_bg", "background LPIPS", "lower", 3),
    Column("ssim_bg", "background SSIM", "higher", 3),
    Column("psnr_bg", "PSNR outside the hole, dB", "higher", 1),
)
TITLES = {column.key: column.title for column in COLUMNS}
NOTES = (
    "The first column is what Paint by Example's code calls FID: it uses CLIP's features, against all of COCO's "
    "test2017. It is not comparable with FID on Inception's features, which these papers do not report.",
    "Features are computed in float32; the original's code computes them in float16 on a GPU.",
    "The leaderboard's background scores zero the hole in both pictures, as ours do; its foreground scores use objects "
    "segmented by SAM, ours the whole box (CLIP, box and DINO, box), so they are not shown side by side.",
)


def as_jobs(items: Sequence[Item], seed: int) -> list[Job]:
    """Return the items as jobs; item k of the id list has the seed `seed + k`, whichever other items are edited."""
    return [
        Job(item.id, item.image, item.mask, (item.exemplar,), seed=seed + item.number, place=f"id {item.id}")
        for item in items
    ]


class Cocoee(Benchmark):
    """The benchmark COCOEE.

    Args:
        data: folder of the test bench.
        reference: folder of the real pictures.
        gmm: file of the Quality Score's mixture of Gaussians.
        model: fields of a `ModelConfig`.
        seed: of the first item.
        rows: name -> `edit` (a preset in configs/edit) and changes to it. The row compared with the paper's numbers
            follows the original's conventions.
        extractors: kind (see `ldm.evaluation.extractors`) -> weights; null for the published ones in
            pretrained_models, or "random" for a trial.
        resamples: of the bootstrap.
    """

    def __init__(
        self,
        data: str,
        reference: str,
        gmm: str,
        model: Mapping[str, Any],
        seed: int,
        rows: Mapping[str, Mapping[str, Any]],
        extractors: Mapping[str, str | None],
        resamples: int,
    ):
        self.data, self.reference, self.gmm, self.seed = Path(data), reference, gmm, seed
        self.model = make_entry(ModelConfig, model, "model")
        self.rows = {
            name: row_settings(EditSettings.read, row, f"rows.{name}") for name, row in mapping(rows, "rows").items()
        }
        self.extractors, self.resamples = extractors, resamples

    def generate(self, context: RunContext) -> Generated:
        items, wrong = read_test_bench(self.data)
        generated = Generated(problems=wrong)
        model = collect_errors(generated.problems)("model", partial(self.model.load, context.device))
        if model is None:
            generated.folders = made_before(context, self.rows)
            return generated
        precision = precision_of(model)
        jobs = context.some(as_jobs(items, self.seed))
        for name, settings in self.rows.items():
            editor = ExemplarEditor(model, settings)
            make_row(generated, context, name, jobs, editor_about(editor, precision), ExemplarJobs(editor))
        return generated

    def measure(self, context: RunContext, folders: Mapping[str, Path]) -> Measured:
        (whole, wrong), problems = read_test_bench(self.data), []  # `generate` has reported `wrong`
        items, every = context.some(whole), len(whole) + len(wrong)
        attempt, cache = collect_errors(problems), FeatureCache(context.folder / "features")
        networks = open_extractors(self.extractors, context.device, attempt)
        reference = ReferenceFeatures(self.reference, cache, context.batch)

        rows = [Row(name, values, "paper") for name, values in {**COCOEE, **COCOEE_LEADERBOARD}.items()]
        fewest = len(items)
        for name, folder in folders.items():
            results = ItemResults.there(items, folder, cache, context.batch)
            fewest = min(fewest, len(results.items))
            metrics = Metrics(results, reference, self.gmm, self.resamples).available(networks) if results.items else {}
            values = {key: attempt(f"{name}, {TITLES[key]}", metric) for key, metric in metrics.items()}
            rows.append(Row(f"here: {name}", values, "here", in_words(self.rows[name])))
        quietly = collect_errors([])  # the metrics have reported files that are missing
        about = {
            "items": len(items),
            "test bench": files_hash(file for item in items for file in (item.image, item.mask, item.exemplar)),
            "real pictures": quietly("real pictures", lambda: files_hash(picture_files(self.reference))),
            "gmm": quietly("gmm", lambda: files_hash([Path(self.gmm)])),
            "runs": records(folders),
            "networks": abouts(networks),
        }
        report = Report(
            "COCOEE: editing by example",
            COLUMNS,
            rows,
            about,
            [*NOTES, *random_notes(networks)],
            f"{fewest} of {every} items" if fewest < every else None,
        )
        return Measured(report, {"figures": partial(plot_rows, report)}, problems)


class ReferenceFeatures:
    """The features of the real pictures, computed once for each extractor."""

    def __init__(self, folder: str, cache: FeatureCache, batch: int):
        self.folder, self.cache, self.batch = folder, cache, batch
        self._found: dict[Extractor, Tensor] = {}

    def __call__(self, extractor: Extractor) -> Tensor:
        if extractor not in self._found:
            files, desc = picture_files(self.folder), f"real, {extractor.name}"
            self._found[extractor] = features_of(extractor, files, self.cache, self.batch, desc=desc)
        return self._found[extractor]


class Metrics:
    """The metrics of some results.

    Args:
        gmm: file of the Quality Score's mixture.
        resamples: of the bootstrap.
    """

    def __init__(self, results: ItemResults, reference: ReferenceFeatures, gmm: str, resamples: int):
        self.results, self.reference, self.gmm, self.resamples = results, reference, gmm, resamples
        self._background: Mapping[str, Tensor] | None = None

    def available(self, networks: Mapping[str, Any]) -> dict[str, Callable[[], Value]]:
        """Return the metrics that these networks can measure, by column key."""
        lpips = networks.get("lpips_vgg")
        found = {"ssim_bg": partial(self.background, "ssim", lpips), "psnr_bg": partial(self.psnr, lpips)}
        if clip := networks.get("clip_vit_b32"):
            found |= {
                "fid_clip": partial(self.fid, clip),
                "qs": partial(self.quality, clip),
                "clip": lambda: self.mean(self.results.clip_score(clip, "original")),
                "clip_exact": lambda: self.mean(self.results.clip_score(clip, "exact")),
                "clip_fg": lambda: self.mean(self.results.box_score(clip)),
            }
        if inception := networks.get("inception"):
            found["fid_inception"] = partial(self.fid, inception)
        if dino := networks.get("dino_vits16"):
            found["dino_fg"] = lambda: self.mean(self.results.box_score(dino))
        if lpips:
            found["lpips_bg"] = partial(self.background, "lpips", lpips)
        return found

    def mean(self, values: Tensor) -> Estimate:
        return mean_estimate(values, resamples=self.resamples)

    def fid(self, extractor: Extractor) -> Estimate:
        return frechet_estimate(self.results.features(extractor), self.reference(extractor), resamples=self.resamples)

    def quality(self, extractor: Extractor) -> Estimate:
        gmm = open_gmm(self.gmm, extractor)
        return self.mean(quality_score(gmm.log_likelihood(self.results.features(extractor))))

    def background(self, score: str, lpips: LpipsDistance | None) -> Estimate:
        """Return the mean of one of the scores of `ldm.evaluation.background`."""
        return self.mean(self._backgrounds(lpips)[score])

    def psnr(self, lpips: LpipsDistance | None) -> Estimate:
        """Return the pooled PSNR outside the holes."""
        values = self._backgrounds(lpips)["psnr outside"]
        values = values[~values.isnan()]  # pictures that are all hole have no PSNR
        return bootstrap(lambda i: pooled_psnr(values[i]), len(values), resamples=self.resamples)

    def _backgrounds(self, lpips: LpipsDistance | None) -> Mapping[str, Tensor]:
        if self._background is None:
            self._background = self.results.background_scores(lpips)
        return self._background


def in_words(settings: EditSettings) -> str:
    """Return the settings that a reader of the table has to know."""
    return (
        f"{settings.sampler}, {settings.steps} steps, guidance {settings.guidance_scale:g}, "
        f"composite {settings.composite}, exemplar {settings.exemplar_fit}"
    )
