"""The trade-off of DiffEdit (2210.11427, section 4): distance of edits to their input against distance to the target,
over encode ratios, compared with the methods that lack one of its parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm.diffusion.process import q_sample
from ldm.diffusion.schedule import Schedule
from ldm.editors.diffedit import DiffEdit, Inversion
from ldm.evaluation.frechet import fit, frechet
from ldm.evaluation.metrics import mean, pooled_psnr, psnr
from ldm.presets import encoded_steps
from ldm.studies.caption_edits import infer_masks
from ldm.studies.judging import Figures, round_trip
from ldm.toyworld.judge import Judge
from ldm.utils.files import replacing
from ldm.utils.random import NoiseSource

# name -> (the picture is encoded by inversion, the edit is inside a mask)
METHODS = {
    "DiffEdit": (True, True),
    "encode-decode": (True, False),
    "masked, no inversion": (False, True),
    "SDEdit": (False, False),
}
Runs = dict[tuple[str, float], Figures]  # (method, encode ratio) -> figures


@dataclass(frozen=True)
class TradeoffPoint:
    """A method at an encode ratio.

    Attributes:
        background: RMS difference to the scenes outside the boxes, before compositing, in levels of 8 bits.
        target: Fréchet distance of the judge's features of the edited boxes to those of the real things.
        right: share of edits in which the judge sees the new attribute, and its standard error.
        all_right: the same for class, colour and pattern together.
    """

    background: float
    target: float
    right: tuple[float, float]
    all_right: tuple[float, float]


@torch.no_grad()
def edit_all_ways(
    editor: DiffEdit,
    judge: Judge,
    batch: Mapping[str, Any],
    ratios: Sequence[float],
    source: str,
    seeds: Sequence[int],
) -> Iterator[tuple[tuple[str, float], Figures]]:
    """Edit every scene of a batch by every method at every ratio, with the same mask, inversion and noise.

    Args:
        batch, source: see `ldm.studies.caption_edits`.
        seeds: of the noise of each scene.

    Yields:
        (method, ratio) and its figures: `features` (B, C) of the edited boxes, `background` in dB outside the boxes,
        and the judge's answers, `class`, `colour`, `pattern` and `all`. Nothing is composited.
    """
    mask = infer_masks(editor, batch, source).latent
    encoded = encode_both_ways(editor, batch["image"], max(ratios), seeds)
    for method in METHODS:
        for ratio in ratios:
            steps = encoded_steps(ratio, editor.settings.steps)
            part = {by_inversion: lower(inversion, steps) for by_inversion, inversion in encoded.items()}
            edited = edit_by(editor, method, part, mask, batch["target"])
            yield (method, ratio), _figures(judge, edited.clamp(-1, 1), batch)


def encode_both_ways(editor: DiffEdit, pictures: Tensor, ratio: float, seeds: Sequence[int]) -> dict[bool, Inversion]:
    """Encode pictures (B, 3, H, W) by inversion (True) and by adding noise of the seeds (False)."""
    inversion = editor.invert(pictures, encode_ratio=ratio)
    z = inversion.latents[0]
    noise = NoiseSource(seeds).randn(*z.shape[1:]).to(z)
    return {True: inversion, False: noised(inversion, editor.model.schedule, noise)}


def edit_by(
    editor: DiffEdit, method: str, encoded: Mapping[bool, Inversion], mask: Tensor | None, targets: Sequence[str]
) -> Tensor:
    """Edit pictures by one of METHODS: (B, 3, H, W), about [-1, 1]; nothing is composited.

    Args:
        encoded: see `encode_both_ways`.
        mask: (B, 1, h, w), of latents; ignored by methods without a mask.
    """
    by_inversion, masked = METHODS[method]
    inversion = encoded[by_inversion]
    where = mask if masked else torch.ones_like(inversion.latents[0][:, :1])
    return editor.decode(editor.edit(inversion, where, targets))


@torch.no_grad()
def unchanged(editor: DiffEdit, judge: Judge, batch: Mapping[str, Any]) -> Figures:
    """Measure the scenes after the autoencoder, the closest that an edit can stay to them."""
    return _figures(judge, round_trip(editor, batch["image"]), batch)


def _figures(judge: Judge, pictures: Tensor, batch: Mapping[str, Any]) -> Figures:
    boxes = batch["box"]
    return {
        "features": judge.features(pictures, boxes),
        "background": psnr(pictures, batch["image"], where=outside(boxes, *pictures.shape[-2:])),
        **judge.correct(pictures, boxes, batch),
    }


def lower(inversion: Inversion, steps: int) -> Inversion:
    """Return the lowest steps of an inversion, as an inversion with a smaller encode ratio gives them."""
    return replace(inversion, timesteps=inversion.timesteps[-steps:])


def outside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return a mask (B, 1, H, W) that is 1 outside boxes (B, 4), x0, y0, x1, y1."""
    x0, y0, x1, y1 = (side.view(-1, 1, 1, 1) for side in boxes.unbind(1))
    x, y = torch.arange(width).view(1, 1, 1, -1), torch.arange(height).view(1, 1, -1, 1)
    return 1 - ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).float()


@dataclass(frozen=True)
class TradeoffStudy:
    """The edits of one change.

    Attributes:
        count: number of edits.
        points: by method and encode ratio.
        unchanged: the scenes after the autoencoder, the closest that an edit can stay to them.
        floor: the Fréchet distance between equally many real things and the real things.
    """

    count: int
    points: dict[tuple[str, float], TradeoffPoint]
    unchanged: TradeoffPoint
    floor: float

    @property
    def ratios(self) -> list[float]:
        """The encode ratios, ascending."""
        return sorted({ratio for _, ratio in self.points})

    def dominated(self, method: str, by: str = "DiffEdit") -> dict[float, bool]:
        """Return for each ratio of a method whether another method dominates it.

        That is, some point of the other is at most as far from the scenes and at most as far from the target.
        """
        better = [point for (name, _), point in self.points.items() if name == by]
        return {
            ratio: any(p.background <= worse.background and p.target <= worse.target for p in better)
            for (name, ratio), worse in self.points.items()
            if name == method
        }

    def report(self) -> dict[str, Any]:
        """Return the study for a JSON file."""
        methods: dict[str, dict[str, Any]] = {}
        for (method, ratio), point in self.points.items():
            methods.setdefault(method, {})[f"{ratio:g}"] = asdict(point)
        return {
            "count": self.count,
            "methods": methods,
            "autoencoder alone": asdict(self.unchanged),
            "real things": self.floor,
            "dominated by DiffEdit": {
                method: {f"{ratio:g}": yes for ratio, yes in self.dominated(method).items()} for method in methods
            },
        }


def summarise(change: str, edits: Runs, unchanged: Figures, real: Tensor, others: Tensor) -> TradeoffStudy:
    """Summarise the figures of all edits of a change.

    Args:
        change: the judge's head that it concerns.
        real: features (M, C) of real things as the edits should show them.
        others: features of other such things, as many as there are edits.
    """
    target = fit(real)

    def point(figures: Figures) -> TradeoffPoint:
        return TradeoffPoint(
            background=255 * 10 ** (-pooled_psnr(figures["background"]) / 20),
            target=frechet(*fit(figures["features"]), *target),
            right=mean(figures[change]),
            all_right=mean(figures["all"]),
        )

    points = {key: point(figures) for key, figures in edits.items()}
    return TradeoffStudy(len(others), points, point(unchanged), frechet(*fit(others), *target))


def noised(inversion: Inversion, schedule: Schedule, noise: Tensor) -> Inversion:
    """Replace the latents of an inversion by noised ones at the same levels, with one noise (B, c, h, w) for all.

    `DiffEdit.edit` then is SDEdit if the mask is 1 everywhere; otherwise it is masked decoding without inversion, that
    is blended latent diffusion (Avrahami et al., 2206.02779) except that the noise stays the same.
    """
    z = inversion.latents[0]
    levels = {t: q_sample(z, noise, schedule.alphas_cumprod[t].item()) for t in inversion.latents if t > 0}
    return replace(inversion, latents={0: z, **levels})


HEAD = "| method | encode ratio | background, levels | Fréchet distance | attribute right, % | all right, % |"


def tradeoff_table(study: TradeoffStudy) -> str:
    """Format a study as a Markdown table with one line per method and ratio."""
    lines = [HEAD, "|---|---|---|---|---|---|"]
    rows = {
        ("autoencoder alone", "-"): study.unchanged,
        **{(method, f"{ratio:g}"): point for (method, ratio), point in study.points.items()},
    }
    for (method, ratio), point in rows.items():
        right, all_right = (f"{100 * share:.1f} ± {100 * error:.1f}" for share, error in (point.right, point.all_right))
        lines.append(f"| {method} | {ratio} | {point.background:.2f} | {point.target:.2f} | {right} | {all_right} |")
    return "\n".join([*lines, f"| real things | - | - | {study.floor:.2f} | - | - |"])


def plot_tradeoff(studies: Mapping[str, TradeoffStudy], file: Path) -> None:
    """Write a PNG with a column for each change: distance to the target above, right answers below."""
    figure = Figure(figsize=(6.5 * len(studies), 8), layout="constrained")
    panels = figure.subplots(2, len(studies), squeeze=False)
    for (change, study), (distance, right) in zip(studies.items(), panels.T, strict=True):
        for method in METHODS:
            points = [study.points[method, ratio] for ratio in study.ratios]
            kept = [point.background for point in points]
            distance.plot(kept, [point.target for point in points], marker="o", label=method)
            right.plot(kept, [100 * point.right[0] for point in points], marker="o", label=method)
            for ratio, point in zip(study.ratios, points, strict=True):
                beside = {"textcoords": "offset points", "xytext": (4, 4), "fontsize": 7}
                right.annotate(f"{ratio:g}", (point.background, 100 * point.right[0]), **beside)
        distance.set_title(f"{change} edits, {study.count} scenes; numbers: encode ratio")
        distance.set_ylabel("distance to the target: Fréchet, the judge's features")
        right.set_ylabel(f"the judge sees the new {change}, %")
        for panel in (distance, right):
            panel.axvline(study.unchanged.background, color="0.6", linestyle=":", label="autoencoder alone")
            panel.set_xlabel("distance to the input: RMS outside the box, levels of 8 bits")
        distance.legend()
    with replacing(file) as partial:
        figure.savefig(partial, format="png", dpi=80)
