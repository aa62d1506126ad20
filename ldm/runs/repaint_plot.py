"""A plot of the times that RePaint visits: down to a clean image, and up again to harmonise."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ldm.utils.files import replacing


def plot_schedule(times: Sequence[int], path: str | Path, title: str) -> None:
    """Write a PNG of time against network calls into an existing folder.

    Each step down is one network call; a step up adds noise without a call, and is drawn vertically.

    Args:
        times: as returned by `ldm.samplers.repaint.jump_schedule`, the last -1 (a clean image).

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # slow to import, and rarely needed

    calls, done = [0], 0
    for before, after in pairwise(times):
        done += after < before
        calls.append(done)
    figure = Figure(figsize=(9, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(calls, times, linewidth=1 if len(times) < 1000 else 0.5)
    axes.set(title=title, xlabel="network calls", ylabel="time (-1: clean)", xlim=(0, done))
    with replacing(path) as partial:
        figure.savefig(partial, format="png")
