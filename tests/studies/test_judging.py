import numpy as np
from PIL import Image

from ldm.studies.judging import HEADS, example_grid, judged_table
from tests.utils.pictures import photo


def test_the_grid_of_examples_shows_every_picture():
    pictures = [photo(8, 8, seed=seed) for seed in range(10)]
    sheet = np.asarray(example_grid([pictures[:2], pictures[2:4], pictures[4:6]], columns=2, scale=3))
    assert sheet.shape == (2 * 24 + 8, 2 * 48 + 16, 3)
    for (x, y), picture in zip([(0, 0), (24, 0), (64, 0), (88, 0), (0, 32), (24, 32)], pictures, strict=False):
        assert np.array_equal(sheet[y : y + 24, x : x + 24], picture.resize((24, 24), Image.Resampling.BICUBIC))


def test_words_stand_below_the_examples():
    picture = photo(64, 64)
    plain = np.asarray(example_grid([[picture], [picture]], columns=1, scale=1))
    worded = np.asarray(example_grid([[picture], [picture]], columns=1, scale=1, words=["a ball", "a mug"]))
    line = (worded.shape[0] - plain.shape[0]) // 2
    assert np.array_equal(worded[:64], plain[:64]) and np.array_equal(worded[72 + line : 136 + line], plain[72:])
    first, second = worded[64 : 64 + line], worded[136 + line :]
    assert first.min() < 128 and second.min() < 128 and not np.array_equal(first, second)


def test_a_table_of_answers():
    figures = {f"edit/{head}": (0.5, 0.01) for head in (*HEADS, "all")}
    head, row, chance = judged_table(figures, {"edit": "edits"}, [0.1, 0.125, 0.25]).splitlines()
    assert head.split()[-4:] == ["class", "colour", "pattern", "all"]
    assert row == "edits" + 19 * " " + 4 * "    50.0 ± 1.0"
    assert chance.split() == ["chance", "10.0", "12.5", "25.0", "0.3"]
