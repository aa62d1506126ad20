import numpy as np
import pytest
import torch

from ldm.editors.exemplar import ExemplarEditor
from ldm.evaluation.metrics import psnr
from ldm.studies.exemplar_edits import edit_and_judge, references
from ldm.studies.judging import HEADS
from ldm.toyworld.scenes import ExemplarScenes, collate
from ldm.utils.image import to_pil, to_tensor
from tests.tiny import shipped_judge, tiny_model


def editor(**changes):
    return ExemplarEditor(tiny_model(), **{"steps": 2, "sampler": "ddim", "feather": 4, **changes})


def scenes(n):
    data = ExemplarScenes(seed=3, length=n)
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
