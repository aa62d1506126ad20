"""Search for the cheapest sampler and number of steps that are as good as 50 steps of PLMS.

Quality is the share of the judge's questions answered right, over the same scenes in every setting. Seed noise is the
variation of that share when only the noise changes.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm.editors.exemplar import ExemplarEditor
from ldm.runs.kept_results import KeptResults, fingerprint
from ldm.studies.exemplar_edits import edit_and_judge
from ldm.studies.judging import HEADS
from ldm.toyworld.judge import Judge
from ldm.utils.files import replacing
from ldm.utils.image import to_tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Settings with which all scenes are edited; `seed` selects the noise, not the scenes."""

    sampler: str
    steps: int
    guidance_scale: float
    seed: int

    def __str__(self) -> str:
        return f"{self.sampler} {self.steps} steps, guidance {self.guidance_scale:g}, seed {self.seed}"


@dataclass(frozen=True)
class Result:
    """The results of a setting.

    Attributes:
        calls: network calls for one edit; with guidance each is a batch of two.
        answers: question of the judge -> a string with a 1 (right) or 0 for each scene.
        background: mean PSNR outside the mask before compositing, in dB.
        distance: root mean square difference to the converged edits inside the holes, for pixels in 0..1.
        seconds: for all scenes.
    """

    calls: int
    answers: dict[str, str]
    background: float
    distance: float
    seconds: float

    @property
    def scores(self) -> Tensor:
        """The share of the questions answered right about each scene, (N,)."""
        return torch.tensor([[int(a) for a in self.answers[head]] for head in HEADS], dtype=torch.float64).mean(0)

    @property
    def quality(self) -> float:
        """The mean score."""
        return self.scores.mean().item()

    @property
    def all_right(self) -> float:
        """The share of scenes about which every question is answered right."""
        return (self.scores == 1).double().mean().item()


class SamplerStudy:
    """Results by setting, in a JSON file that is written after each; existing results are not computed again.

    Args:
        batches: the scenes, see `ldm.studies.exemplar_edits`.
        converged: the setting whose edits the others are compared with.
        about: what the results depend on besides the networks, e.g. the seed of the scenes.
        file: earlier results of the same networks and scenes, if it exists.

    Raises:
        UserError: the file contains something else.
    """

    def __init__(
        self,
        editor: ExemplarEditor,
        judge: Judge,
        batches: Sequence[Mapping[str, Any]],
        converged: Setting,
        about: Mapping[str, Any],
        file: Path,
    ):
        self.editor, self.judge, self.batches, self.converged = editor, judge, batches, converged
        about = {**about, "networks": fingerprint(editor.model, judge)}
        self.results = KeptResults(file, Result, about, "a sampler study")
        self._target: Tensor | None = None

    def result(self, setting: Setting) -> Result:
        """Return a result from the file, or compute it and write it there."""
        if str(setting) not in self.results:
            pictures, result = self._run(setting)
            distance = (pictures - self._converged(setting, pictures)).square()[self._holes()].mean().sqrt().item() / 2
            self.results[str(setting)] = replace(result, distance=distance)
            text = f"{result.calls} calls, {100 * result.quality:.1f} % right, {result.seconds:.0f} s"
            log.info("%s: %s", setting, text)
        return self.results[str(setting)]

    def _run(self, setting: Setting) -> tuple[Tensor, Result]:
        """Edit all scenes; return the pictures (N, 3, H, W) and the judge's answers."""
        changes = {"sampler": setting.sampler, "steps": setting.steps, "guidance_scale": setting.guidance_scale}
        editor = ExemplarEditor(self.editor.model, replace(self.editor.settings, **changes))
        shown, parts, calls, start = [], [], 0, time.perf_counter()

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        hook = editor.model.unet.register_forward_hook(count)
        try:
            for batch in self.batches:
                n, done = len(batch["image"]), len(shown)
                seeds = [setting.seed * 1_000_000 + done + k for k in range(n)]
                pictures, figures = edit_and_judge(editor, self.judge, batch, seeds)
                shown += [to_tensor(picture) for picture in pictures]
                parts.append(figures)
        finally:
            hook.remove()
        answers = {head: torch.cat([part[f"edit/{head}"] for part in parts]).int().tolist() for head in HEADS}
        return torch.cat(shown), Result(
            calls=calls // len(self.batches),
            answers={head: "".join(map(str, values)) for head, values in answers.items()},
            background=torch.cat([part["background"] for part in parts]).mean().item(),
            distance=math.nan,
            seconds=time.perf_counter() - start,
        )

    def _converged(self, setting: Setting, pictures: Tensor) -> Tensor:
        if self._target is None:
            self._target = pictures if setting == self.converged else self._run(self.converged)[0]
        return self._target

    def _holes(self) -> Tensor:
        masks = torch.cat([batch["mask"] for batch in self.batches])
        return (masks > 0).expand(-1, 3, -1, -1)


def seed_noise(results: Sequence[Result]) -> float:
    """Estimate the standard deviation of a result's quality over seeds, pooling the variances of the scenes."""
    scores = torch.stack([result.scores for result in results])
    return (scores.var(0, correction=1).sum().sqrt() / scores.shape[1]).item()


def cheapest(
    study: SamplerStudy, settings: Sequence[Setting], reference: Setting, seeds: Sequence[int]
) -> Setting | None:
    """Find the setting with the fewest calls whose quality is within seed noise of the reference's, or None.

    "Within" means not lower by more than the standard deviation of the difference. A setting that passes at its own
    seed must also pass on average over all `seeds`, so that luck does not decide.
    """
    references = [study.result(replace(reference, seed=seed)) for seed in seeds]
    noise, goal = seed_noise(references), sum(r.quality for r in references) / len(seeds)
    for setting in sorted(settings, key=lambda s: study.result(s).calls):
        if study.result(setting).quality < goal - noise * math.sqrt(1 + 1 / len(seeds)):
            continue
        qualities = [study.result(replace(setting, seed=seed)).quality for seed in seeds]
        if sum(qualities) / len(seeds) >= goal - noise * math.sqrt(2 / len(seeds)):
            return setting
    return None


def sampler_table(results: Mapping[str, Result]) -> str:
    """Format results as a table with one line each."""
    lines = [f"{'':16}{'calls':>6}{'right, %':>10}{'all right, %':>14}{'background, dB':>16}{'distance':>10}"]
    for title, result in results.items():
        lines.append(
            f"{title:16}{result.calls:6}{100 * result.quality:10.1f}{100 * result.all_right:14.1f}"
            f"{result.background:16.2f}{result.distance:10.4f}"
        )
    return "\n".join(lines)


def plot_samplers(
    compared: Mapping[Setting, Result], standard: Sequence[Result], sweep: Mapping[Setting, Result], file: Path
) -> None:
    """Write a PNG of quality and distance to the converged edits against network calls, and of the effect of guidance.

    Args:
        compared: samplers and numbers of steps at one guidance scale.
        standard: the reference under several seeds.
        sweep: guidance scales at one sampler and number of steps.
    """
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    (quality, distance, guidance) = figure.subplots(1, 3)
    for sampler in dict.fromkeys(setting.sampler for setting in compared):
        results = sorted((r for s, r in compared.items() if s.sampler == sampler), key=lambda r: r.calls)
        calls = [r.calls for r in results]
        quality.plot(calls, [100 * r.quality for r in results], marker="o", label=sampler)
        distance.plot(calls, [r.distance or math.nan for r in results], marker="o", label=sampler)

    noise, goal = seed_noise(standard), sum(r.quality for r in standard) / len(standard)
    band = f"plms, {standard[0].calls} calls, ± seed noise"
    quality.axhspan(100 * (goal - noise), 100 * (goal + noise), color="0.85", zorder=0, label=band)
    quality.set(title="Judged right", ylabel="answers right, %")
    between = sum(r.distance for r in standard[1:]) / (len(standard) - 1)
    distance.axhline(between, color="0.6", linestyle="--", label="another seed")
    distance.set(title="Distance to the converged edits", ylabel="RMS in the hole, pixels in 0..1", yscale="log")
    ticks = sorted({setting.steps for setting in compared})
    for axes in (quality, distance):
        axes.set(xlabel="network calls", xscale="log")
        axes.minorticks_off()
        axes.set_xticks(ticks, ticks)
        axes.legend()

    at, scales = next(iter(sweep)), [setting.guidance_scale for setting in sweep]
    guidance.plot(scales, [100 * r.quality for r in sweep.values()], marker="o", label="answers right")
    guidance.plot(scales, [100 * r.all_right for r in sweep.values()], marker="o", label="things all right")
    guidance.set(title=f"Guidance, {at.sampler} with {at.steps} steps", xlabel="guidance scale", ylabel="%")
    background = guidance.twinx()
    background.plot(scales, [r.background for r in sweep.values()], marker="s", color="0.5", label="background, dB")
    background.set_ylabel("PSNR outside the mask, before compositing, dB")
    guidance.legend(handles=[*guidance.lines, *background.lines])
    with replacing(file) as partial:
        figure.savefig(partial, format="png", dpi=80)
