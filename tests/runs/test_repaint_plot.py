from itertools import pairwise

from matplotlib.axes import Axes
from PIL import Image

from ldm.runs.repaint_plot import plot_schedule
from tests.refusals import refused

TIMES = [3, 2, 1, 2, 3, 2, 1, 0, -1]


def test_a_fall_costs_a_call_and_a_rise_none(tmp_path, monkeypatch):
    drawn, plot = [], Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda axes, *args, **style: drawn.extend(args) or plot(axes, *args, **style))
    plot_schedule(TIMES, tmp_path / "plot.png", "4 steps")
    calls, times = drawn
    assert list(times) == TIMES and calls == [0, 1, 2, 2, 2, 3, 4, 5, 6]
    assert calls[-1] == sum(after < before for before, after in pairwise(TIMES))
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG" and picture.convert("L").getextrema()[0] < 128
    assert len(list(tmp_path.iterdir())) == 1


def test_a_plot_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with refused(tmp_path / "file/plot.png"):
        plot_schedule(TIMES, tmp_path / "file/plot.png", "4 steps")
