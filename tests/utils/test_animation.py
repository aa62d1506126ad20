import numpy as np
from PIL import Image, ImageSequence

from ldm.utils.animation import save_gif
from tests.refusals import refused
from tests.utils.pictures import photo


def shown(path):
    """Frames as (H, W, 3), their durations in ms, and how often they are repeated."""
    with Image.open(path) as file:
        frames = [(np.asarray(f.convert("RGB")).astype(int), f.info["duration"]) for f in ImageSequence.Iterator(file)]
        return *map(list, zip(*frames, strict=True)), file.info["loop"]


def test_the_frames_come_back_and_the_last_is_held(tmp_path):
    frames = [photo(40, 30, seed) for seed in range(5)]
    save_gif(frames, tmp_path / "a.gif", seconds=2, hold=1.5)
    pixels, durations, loop = shown(tmp_path / "a.gif")
    assert durations == [400] * 4 + [1900] and loop == 0
    for frame, original in zip(pixels, frames, strict=True):
        assert np.abs(frame - np.asarray(original)).mean() < 6  # 256 colours


def test_many_frames_are_shown_no_faster_than_viewers_can(tmp_path):
    save_gif([photo(8, 8, seed) for seed in range(60)], tmp_path / "a.gif", seconds=0.5, hold=0)
    assert shown(tmp_path / "a.gif")[1] == [20] * 60


def test_one_frame_and_frames_alike_are_animations_too(tmp_path):
    save_gif([photo()], tmp_path / "one.gif", seconds=1, hold=1)
    assert len(list(tmp_path.iterdir())) == 1
    save_gif([photo()] * 3 + [photo(seed=1)], tmp_path / "alike.gif", seconds=4, hold=1)
    assert sum(shown(tmp_path / "alike.gif")[1]) == 5000


def test_transparency_is_dropped_and_the_file_is_small(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (64, 64, 4), np.uint8)) for _ in range(40)]
    save_gif(frames, tmp_path / "noise.gif")
    assert (tmp_path / "noise.gif").stat().st_size < 40 * (
        1.5 * 64 * 64 + 800
    )  # noise and palettes: nothing can be packed
    assert shown(tmp_path / "noise.gif")[0][0].shape == (64, 64, 3)


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/a.gif", tmp_path):
        with refused(path):
            save_gif([photo()], path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
