"""Paint by Example's benchmark (2211.13227, section 5): 3,500 edits of COCO's val2017, COCOEE.

Folders are those of the original, see `ldm.benchmark.layout`. Real pictures are COCO's test2017, squared by
`ldm create-square-gt-for-fid`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.benchmark.cocoee_figures import ItemResults
from ldm.benchmark.entries import mapping, row_settings
from ldm.benchmark.layout import Item, read_test_bench
from ldm.benchmark.papers import COCOEE, COCOEE_LEADERBOARD
from ldm.benchmark.report import Column, Report, Row, Value, abouts, plot_rows, random_notes
from ldm.benchmark.rows import made_before, make_row, records
from ldm.benchmark.run import Benchmark, Generated, Measured, RunContext, collect_errors, files_hash, open_extractors
from ldm.checkpoints.open import load, precision_of
from ldm.data.images import picture_files
from ldm.editors.exemplar import ExemplarEditor
from ldm.evaluation.bootstrap import Estimate, bootstrap, mean_estimate
from ldm.evaluation.extractors import Extractor
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
    "What Paint by Example's code calls FID is the first column: of CLIP's features, against all of COCO's test2017. "
    "It cannot be compared with FID of Inception's features, which no paper states here.",
    "Features are computed in float32; the original's code computes them in float16 on a GPU.",
    "The leaderboard's background figures zero the hole in both pictures, as ours do; its foreground scores are of "
    "things that SAM cut out, ours of the whole box (CLIP, box and DINO, box): they are not shown beside each other.",
)


def as_jobs(items: Sequence[Item], seed: int) -> list[Job]:
    """The items as jobs; item k of the list of ids has the seed `seed` + k, whichever others are made."""
    return [
        Job(item.id, item.image, item.mask, (item.exemplar,), seed=seed + item.number, place=f"id {item.id}")
        for item in items
    ]


class Cocoee(Benchmark):
    """COCOEE.

    Args:
        data: the test bench.
        reference: the folder of real pictures.
        gmm: of the Quality Score.
        model: a config, or its name.
        checkpoint: the model's weights, if not those that the config names.
        precision: see `ldm.load`.
        seed: of the first item.
        rows: name -> `edit` (a file of configs/edit) and what differs from it. What stands beside the paper's numbers
            follows the original's conventions.
        extractors: kind (see `ldm.evaluation.extractors`) -> its weights, null for the published ones in
            pretrained_models, or "random" for a trial.
        resamples: of the bootstrap.
    """

    def __init__(
        self,
        data: str,
        reference: str,
        gmm: str,
        model: str,
        checkpoint: str | Sequence[str] | None,
        precision: str,
        seed: int,
        rows: Mapping[str, Mapping[str, Any]],
        extractors: Mapping[str, str | None],
        resamples: int,
    ):
        self.data, self.reference, self.gmm = Path(data), reference, gmm
        self.model, self.checkpoint, self.precision, self.seed = model, checkpoint, precision, seed
        self.rows = {
            name: row_settings(EditSettings.read, row, f"rows.{name}") for name, row in mapping(rows, "rows").items()
        }
        self.extractors, self.resamples = extractors, resamples

    def generate(self, work: RunContext) -> Generated:
        items, wrong = read_test_bench(self.data)
        made = Generated(problems=wrong)
        load_model = partial(load, self.model, self.checkpoint, work.device, self.precision)
        model = collect_errors(made.problems)("model", load_model)
        if model is None:
            made.folders = made_before(work, self.rows)
            return made
        precision = precision_of(model)
        jobs = work.some(as_jobs(items, self.seed))
        for name, settings in self.rows.items():
            editor = ExemplarEditor(model, settings)
            make_row(made, work, name, jobs, editor_about(editor, precision), ExemplarJobs(editor))
        return made

    def measure(self, work: RunContext, folders: Mapping[str, Path]) -> Measured:
        (whole, wrong), problems = read_test_bench(self.data), []  # what is wrong has been told
        items, every = work.some(whole), len(whole) + len(wrong)
        attempt, kept = collect_errors(problems), FeatureCache(work.folder / "features")
        networks = open_extractors(self.extractors, work.device, attempt)

        @cache
        def real(extractor: Extractor) -> Tensor:
            return features_of(
                extractor, picture_files(self.reference), kept, work.batch, desc=f"real, {extractor.name}"
            )

        rows = [Row(name, values, "paper") for name, values in {**COCOEE, **COCOEE_LEADERBOARD}.items()]
        fewest = len(items)
        for name, folder in folders.items():
            results = ItemResults.there(items, folder, kept, work.batch)
            fewest = min(fewest, len(results.items))
            metrics = self.metrics(results, networks, real) if results.items else {}
            values = {key: attempt(f"{name}, {TITLES[key]}", metric) for key, metric in metrics.items()}
            rows.append(Row(f"here: {name}", values, "here", in_words(self.rows[name])))
        told_of = collect_errors([])  # whose absence has been told of by the metrics
        about = {
            "items": len(items),
            "test bench": files_hash(file for item in items for file in (item.image, item.mask, item.exemplar)),
            "real pictures": told_of("real pictures", lambda: files_hash(picture_files(self.reference))),
            "gmm": told_of("gmm", lambda: files_hash([Path(self.gmm)])),
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

    def metrics(
        self, results: ItemResults, networks: Mapping[str, Any], real: Callable[[Extractor], Tensor]
    ) -> dict[str, Callable[[], Value]]:
        """What can be measured with those networks, by column; `real` gives features of the real pictures."""
        mean = partial(mean_estimate, resamples=self.resamples)

        def fid(extractor: Extractor) -> Estimate:
            return frechet_estimate(results.features(extractor), real(extractor), resamples=self.resamples)

        def quality(extractor: Extractor) -> Estimate:
            return mean(quality_score(open_gmm(self.gmm, extractor).log_likelihood(results.features(extractor))))

        def psnr() -> Estimate:
            values = background()["psnr outside"]
            values = values[~values.isnan()]  # of pictures that are all hole
            return bootstrap(lambda i: pooled_psnr(values[i]), len(values), resamples=self.resamples)

        background = cache(partial(results.background_scores, networks.get("lpips_vgg")))
        found = {"ssim_bg": lambda: mean(background()["ssim"]), "psnr_bg": psnr}
        if clip := networks.get("clip_vit_b32"):
            found |= {
                "fid_clip": partial(fid, clip),
                "qs": partial(quality, clip),
                "clip": lambda: mean(results.clip_score(clip, "original")),
                "clip_exact": lambda: mean(results.clip_score(clip, "exact")),
                "clip_fg": lambda: mean(results.box_score(clip)),
            }
        if inception := networks.get("inception"):
            found["fid_inception"] = partial(fid, inception)
        if dino := networks.get("dino_vits16"):
            found["dino_fg"] = lambda: mean(results.box_score(dino))
        if "lpips_vgg" in networks:
            found["lpips_bg"] = lambda: mean(background()["lpips"])
        return found


def in_words(settings: EditSettings) -> str:
    """What a reader of the table has to know of the settings."""
    return (
        f"{settings.sampler}, {settings.steps} steps, guidance {settings.guidance_scale:g}, "
        f"composite {settings.composite}, exemplar {settings.exemplar_fit}"
    )
