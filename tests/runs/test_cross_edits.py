import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.toyworld_cross import CrossExemplars, collate
from ldm.evaluation.metrics import psnr
from ldm.runs.cross_edits import HEADS, edit_and_judge, example_grid, judged_table, references
from ldm.runs.settings import exemplar_editor
from ldm.utils.image import to_pil, to_tensor
from tests.tiny import shipped_judge, tiny_model
from tests.utils.pictures import photo


def editor(**changes):
    return exemplar_editor(tiny_model(), **{"steps": 2, "sampler": "ddim", "feather": 4, **changes})


def scenes(n):
    data = CrossExemplars(seed=3, length=n)
    return collate([data[i] for i in range(n)])


def painting(monkeypatch, edited):
    """An editor whose model answers with these pictures."""
    perfect = editor(match_colour=False)
    monkeypatch.setattr(type(perfect), "decode", lambda self, z: edited)
    return perfect


def pasted(batch):
    """The scenes with the exemplar's thing squeezed into the box: what a perfect model would do, but for the edges."""
    images = [to_pil(image) for image in batch["image"]]
    for image, box, exemplar in zip(images, batch["box"].tolist(), batch["exemplar"], strict=True):
        x0, y0, x1, y1 = box
        image.paste(exemplar.resize((x1 - x0 + 4, y1 - y0 + 4)), (x0 - 2, y0 - 2))
    return torch.cat([to_tensor(image) for image in images])


def test_a_pasted_exemplar_is_judged_right(monkeypatch):
    batch = scenes(24)
    _, figures = edit_and_judge(painting(monkeypatch, pasted(batch)), shipped_judge(), batch, range(24))
    assert {head: figures[f"edit/{head}"].float().mean() >= 0.9 for head in HEADS} == dict.fromkeys(HEADS, True)
    assert (figures["background"] > 40).all()  # dB: nothing but the paste's edge at the picture's border has changed
    assert figures["exact"].all()


def test_an_edit_that_changes_nothing_is_judged_wrong(monkeypatch):
    batch = scenes(8)
    pictures, figures = edit_and_judge(painting(monkeypatch, batch["image"]), shipped_judge(), batch, range(8))
    assert not figures["edit/class"].any() and not figures["edit/colour"].any() and not figures["edit/all"].any()
    assert all(np.array_equal(p, to_pil(image)) for p, image in zip(pictures, batch["image"], strict=True))


def test_the_background_is_measured_outside_the_mask_before_compositing(monkeypatch):
    batch = scenes(4)
    edited = (batch["image"] + torch.where(batch["mask"] > 0, 0.7, 0.02)).clamp(-1, 1)
    _, figures = edit_and_judge(painting(monkeypatch, edited), shipped_judge(), batch, range(4))
    assert torch.equal(figures["background"], psnr(edited, batch["image"], where=1 - batch["mask"]))
    assert figures["background"].min() >= 40 - 1e-3  # 10 log10(4 / 0.02^2), more where the picture was white already
    assert figures["exact"].all()


def test_without_compositing_nothing_is_exact():
    batch = scenes(2)
    _, figures = edit_and_judge(editor(composite="none"), shipped_judge(), batch, range(2))
    assert not figures["exact"].any()


def test_an_edit_does_not_depend_on_its_batch():
    whole, seeds = scenes(3), [11, 12, 13]
    pictures, figures = edit_and_judge(editor(), shipped_judge(), whole, seeds)
    for i, seed in enumerate(seeds):
        one = {key: value[i : i + 1] for key, value in whole.items()}
        (picture,), alone = edit_and_judge(editor(), shipped_judge(), one, [seed])
        assert np.abs(np.asarray(picture, int) - np.asarray(pictures[i], int)).max() <= 1
        assert alone["background"].item() == pytest.approx(figures["background"][i].item(), abs=1e-3)
    other, _ = edit_and_judge(editor(), shipped_judge(), whole, [21, 22, 23])
    assert not np.array_equal(other[0], pictures[0])


def test_references_judge_the_exemplars_own_scenes():
    batch = scenes(12)
    figures = references(editor(), shipped_judge(), batch)
    assert figures["real/all"].float().mean() >= 0.9
    assert figures["round trip/all"].float().mean() < 0.5  # an untrained autoencoder
    autoencoder = tiny_model().autoencoder
    again = autoencoder.decode(autoencoder.encode(batch["image"]).mode()).clamp(-1, 1)
    expected = psnr(again, batch["image"], where=1 - batch["mask"])
    torch.testing.assert_close(figures["background round trip"], expected)


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
