"""The sampler study as a table and as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from ldm.studies.sampler_study import Result, Setting, seed_noise
from ldm.utils.files import replacing


def table(results: Mapping[str, Result]) -> str:
    """One line a result."""
    lines = [f"{'':16}{'calls':>6}{'right, %':>10}{'all right, %':>14}{'background, dB':>16}{'distance':>10}"]
    for title, result in results.items():
        lines.append(
            f"{title:16}{result.calls:6}{100 * result.quality:10.1f}{100 * result.all_right:14.1f}"
            f"{result.background:16.2f}{result.distance:10.4f}"
        )
    return "\n".join(lines)


def draw(
    compared: Mapping[Setting, Result], standard: Sequence[Result], sweep: Mapping[Setting, Result], file: Path
) -> None:
    """Write a PNG: quality and distance to the converged edits against network calls, and what guidance does.

    Args:
        compared: samplers and numbers of steps at one guidance scale.
        standard: the reference under several seeds.
        sweep: guidance scales at one sampler and number of steps.
    """
    matplotlib.use("Agg")
    figure, (quality, distance, guidance) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
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
    plt.close(figure)
