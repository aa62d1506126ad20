"""The trade-off study as a table and as a picture."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from ldm.studies.tradeoff import METHODS, Study
from ldm.utils.files import replacing

HEAD = "| method | encode ratio | background, levels | Fréchet distance | attribute right, % | all right, % |"


def table(study: Study) -> str:
    """Markdown, one line a method and ratio."""
    lines = [HEAD, "|---|---|---|---|---|---|"]
    rows = {
        ("autoencoder alone", "-"): study.unchanged,
        **{(method, f"{ratio:g}"): point for (method, ratio), point in study.points.items()},
    }
    for (method, ratio), point in rows.items():
        right, all_right = (f"{100 * share:.1f} ± {100 * error:.1f}" for share, error in (point.right, point.all_right))
        lines.append(f"| {method} | {ratio} | {point.background:.2f} | {point.target:.2f} | {right} | {all_right} |")
    return "\n".join([*lines, f"| real things | - | - | {study.floor:.2f} | - | - |"])


def draw(studies: Mapping[str, Study], file: Path) -> None:
    """Write a PNG: a column for each change, distance to the target above, right answers below."""
    matplotlib.use("Agg")
    figure, panels = plt.subplots(2, len(studies), figsize=(6.5 * len(studies), 8), layout="constrained", squeeze=False)
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
    plt.close(figure)
