"""Edits of batches of small scenes by example, and a judge's answers on them.

A batch is made by `ldm.toyworld.scenes.collate`: image (B, 3, H, W) in [-1, 1], with sides that are multiples of the
model's; mask (B, 1, H, W), 1 = repaint; box (B, 4) in pixels, where the judge looks; exemplar, B pictures; donor and
donor_box, where the exemplars come from; class, colour and pattern, (B,) int64, of the exemplars.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.exemplars import encode_exemplars
from ldm.evaluation.metrics import psnr
from ldm.presets import Compositing
from ldm.studies.judging import Figures, finish, judged, round_trip
from ldm.toyworld.judge import Judge
from ldm.utils.image import to_tensor
from ldm.utils.random import NoiseSource


@torch.no_grad()
def edit_and_judge(
    editor: ExemplarEditor, judge: Judge, batch: Mapping[str, Any], seeds: Sequence[int]
) -> tuple[list[Image.Image], Figures]:
    """Edit every scene of a batch with its own exemplar and seed, independently of the rest of the batch.

    Returns:
        The pictures and figures of `judge_edits`.
    """
    settings, condition = editor.settings, contexts(editor, batch["exemplar"])
    edited = editor.sample(batch["image"], batch["mask"], condition, NoiseSource(seeds), settings)
    return judge_edits(judge, batch, editor.decode(edited).clamp(-1, 1), batch["mask"], settings)


def judge_edits(
    judge: Judge, batch: Mapping[str, Any], edited: Tensor, masks: Tensor, settings: Compositing
) -> tuple[list[Image.Image], Figures]:
    """Composite and judge the edits (B, 3, H, W) of a batch, as decoded, in holes (B, 1, H, W).

    Returns:
        The finished pictures, composited by the settings, and
        edit/class, edit/colour, edit/pattern, edit/all: whether the box shows what the exemplar does,
        background: dB outside the mask, before compositing, against the scene,
        exact: whether the picture equals the scene outside the mask and its feather, byte for byte.
    """
    pictures, exact = finish(edited, batch["image"], masks, settings)
    shown = torch.cat([to_tensor(picture) for picture in pictures])
    figures = {"background": psnr(edited, batch["image"], where=1 - masks), "exact": exact}
    return pictures, judged("edit", judge, shown, batch["box"], batch) | figures


@torch.no_grad()
def references(editor: ExemplarEditor, judge: Judge, batch: Mapping[str, Any]) -> Figures:
    """Judge the references of the edits.

    Returns:
        real/class etc.: the judge's answers on the exemplars' own scenes, as drawn,
        round trip/class etc.: the same after the model's autoencoder,
        background round trip: dB outside the mask of the scenes after the autoencoder.
    """
    donors, scenes = (round_trip(editor, batch[name]) for name in ("donor", "image"))
    return {
        **judged("real", judge, batch["donor"], batch["donor_box"], batch),
        **judged("round trip", judge, donors, batch["donor_box"], batch),
        "background round trip": psnr(scenes, batch["image"], where=1 - batch["mask"]),
    }


def contexts(editor: ExemplarEditor, exemplars: Sequence[Image.Image]) -> Tensor:
    """Return the context of each exemplar, (B, L, C), fitted by the editor's settings."""
    return encode_exemplars(editor.model.conditioner, exemplars, editor.settings.exemplar_fit)[1]
