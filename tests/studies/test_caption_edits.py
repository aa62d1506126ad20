import math

import numpy as np
import pytest
import torch

from ldm.editors.diffedit import DiffEdit
from ldm.editors.mask_inference import InferredMask
from ldm.evaluation.metrics import psnr
from ldm.studies.caption_edits import edit_and_judge, edit_table, mask_figures, references, summary
from ldm.toyworld.scenes import CaptionScenes, collate, draw_things
from ldm.utils.image import to_pil
from tests.tiny import shipped_judge
from tests.toyworld.models import tiny_caption_model

FAST = {"steps": 4, "n_maps": 2}


def edits(n, change="colour"):
    data = CaptionScenes(seed=3, length=n, change=change)
    return collate([data[i] for i in range(n)])


def with_masks(monkeypatch, masks: dict[str, torch.Tensor], decoded: list[torch.Tensor] | None = None, **changes):
    """An editor that finds these masks (B, 1, 16, 16), by source, and whose model answers with these pictures."""

    def infer_mask(self, image, source, target, **settings):
        assert len(image) == len(source) == len(target)
        latent = masks["caption" if source[0] else "empty"]
        return InferredMask(latent, latent, latent.repeat_interleave(4, 2).repeat_interleave(4, 3))

    monkeypatch.setattr(DiffEdit, "infer_mask", infer_mask)
    if decoded is not None:
        answers = iter(decoded)
        monkeypatch.setattr(DiffEdit, "decode", lambda self, z: next(answers))
    return DiffEdit(tiny_caption_model(), **FAST, **changes)


def cells(mask: torch.Tensor) -> torch.Tensor:
    return (torch.nn.functional.avg_pool2d(mask, 4) > 0).float()


def test_a_cell_belongs_to_a_thing_that_covers_half_of_it():
    thing = torch.zeros(1, 1, 16, 16)
    thing[..., :8, :8] = 1  # cells (0, 0) to (1, 1)
    thing[..., 8:10, :4] = 1  # half of (2, 0)
    thing[..., 8:9, 4:8] = 1  # a quarter of (2, 1)
    latent = torch.zeros(1, 1, 4, 4)
    latent[..., :3, :2] = 1
    found = InferredMask(latent, latent, latent.repeat_interleave(4, 2).repeat_interleave(4, 3))
    figures = mask_figures(found, thing)
    assert figures["iou"].item() == pytest.approx(5 / 6)
    assert figures["pixel iou"].item() == pytest.approx((64 + 8 + 4) / 96)
    assert not figures["no mask"].any()
    nothing = InferredMask(latent, latent * 0, found.mask * 0)
    assert mask_figures(nothing, thing)["no mask"].all() and mask_figures(nothing, thing)["iou"] == 0


def test_figures_of_known_masks_and_pictures(monkeypatch):
    batch = edits(4)
    scenes, mask = batch["image"], cells(batch["mask"])
    pixels = mask.repeat_interleave(4, 2).repeat_interleave(4, 3)
    edited = (scenes + torch.where(pixels > 0, 0.7, 0.02)).clamp(-1, 1)
    kept, back = scenes * 0.99, scenes * 0.97
    editor = with_masks(monkeypatch, {"caption": mask, "empty": mask * 0}, [edited, kept, back])
    examples, figures = edit_and_judge(editor, shipped_judge(), batch, "caption")

    torch.testing.assert_close(figures["background"], psnr(edited, scenes, where=1 - pixels))
    torch.testing.assert_close(figures["background, round trip"], psnr(kept, scenes, where=1 - pixels))
    torch.testing.assert_close(figures["inversion"], psnr(back, kept))
    assert figures["exact"].all()
    assert (figures["caption/pixel iou"] > 0.4).all() and not figures["caption/no mask"].any()
    assert (figures["empty/iou"] == 0).all() and figures["empty/no mask"].all()
    assert figures["unchanged/class"].all() and not figures["unchanged/colour"].any()
    assert np.array_equal(np.asarray(examples[0].scene), np.asarray(to_pil(scenes[0])))
    assert np.array_equal(np.asarray(examples[0].mask)[..., 0] > 0, pixels[0, 0].numpy() > 0)
    old, new = examples[0].words.split(" -> ")
    assert old in batch["source"][0] and new in batch["target"][0] and old != new


def test_the_right_picture_without_a_mask_is_a_failed_edit(monkeypatch):
    batch = edits(4)
    mask = cells(batch["mask"])
    mask[:1] = 0
    batch = {**batch, "colour": shipped_judge()(batch["image"], batch["box"])["colour"].argmax(1)}  # what it is already
    pictures = [batch["image"]] * 3
    editor = with_masks(monkeypatch, {"caption": mask, "empty": mask}, pictures, match_colour=False)
    _, figures = edit_and_judge(editor, shipped_judge(), batch, "caption")
    assert figures["edit/colour"].tolist() == [False, True, True, True]
    assert figures["background"].isnan().tolist() == [True, False, False, False]
    monkeypatch.undo()
    found = summary(figures | references(editor_without_stand_ins(), shipped_judge(), batch))
    assert found["no mask"] == {"caption": 1, "empty": 1}
    assert found["figures"]["edit/colour"][0] == pytest.approx(3 / 4)
    assert found["figures"]["background"][0] == math.inf


def editor_without_stand_ins():
    return DiffEdit(tiny_caption_model(), **FAST)


def test_an_edit_does_not_depend_on_its_batch():
    whole, editor = edits(2, "class"), editor_without_stand_ins()
    examples, figures = edit_and_judge(editor, shipped_judge(), whole, "empty")
    for i in range(2):
        one = {key: value[i : i + 1] for key, value in whole.items()}
        (alone,), again = edit_and_judge(editor, shipped_judge(), one, "empty")
        assert np.abs(np.asarray(alone.edit, int) - np.asarray(examples[i].edit, int)).max() <= 1
        for name in ("caption/iou", "empty/pixel iou", "inversion"):
            assert again[name].item() == pytest.approx(figures[name][i].item(), abs=1e-2)


def test_a_table_of_figures():
    things = collate(list(draw_things([(0, 0, 0), (1, 1, 0)], seed=1)))
    editor, judge = editor_without_stand_ins(), shipped_judge()
    _, figures = edit_and_judge(editor, judge, edits(2), "caption")
    found = summary(figures | references(editor, judge, things))
    assert found["figures"]["real/class"] == (1.0, 0.0)
    assert found["figures"]["round trip/all"][0] < 1  # an untrained autoencoder
    text = edit_table(found, [0.1, 0.125, 0.25])
    value, error = found["figures"]["caption/iou"]
    assert f"{value:.3f} ± {error:.3f}" in text and found["exact"] in text
    assert "0.3" in text.split("chance")[1].splitlines()[0]
