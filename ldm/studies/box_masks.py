"""Edits by example with a mask inferred inside a box, compared with edits that use the whole box as the mask.

A batch is made by `ldm.toyworld.scenes.collate`, see `ldm.studies.exemplar_edits`; its masks are the boxes, and
`visible` (B, 1, H, W) is 1 where the thing to be replaced is visible.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.editors.exemplar import ExemplarEditor
from ldm.editors.mask_inference import InferredMask
from ldm.evaluation.metrics import mean, pooled_psnr, psnr
from ldm.presets import MaskInference
from ldm.studies.caption_edits import mask_figures
from ldm.studies.exemplar_edits import contexts, edit_and_judge
from ldm.studies.judging import Figures, judged_table
from ldm.toyworld.judge import Judge
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.mask import mask_box, mask_picture
from ldm.utils.overlay import heat_map

MASKS = {"inferred": "mask found in it", "box": "the whole box"}
DECIBELS = ("background", "surroundings")


def infer_masks(editor: ExemplarEditor, batch: Mapping[str, Any], inference: MaskInference) -> InferredMask:
    """Infer which pixels in each scene's box must change to show the exemplar; cells count if half masked."""
    scenes, boxes = batch["image"], batch["mask"]
    shown = [to_pil(scene).crop(mask_box(box)) for scene, box in zip(scenes, boxes.split(1), strict=True)]
    reference, query = contexts(editor, shown), contexts(editor, batch["exemplar"])
    found = editor.compare(scenes, boxes, reference, query, inference)
    return in_cells(found.map, found.mask * boxes)


def in_cells(map: Tensor, mask: Tensor) -> InferredMask:
    """Return a mask (B, 1, H, W) together with its cells, at the map's size, those at least half covered."""
    return InferredMask(map, (F.interpolate(mask, map.shape[-2:], mode="area") >= 0.5).float(), mask)


@torch.no_grad()
def compare_masks(
    editor: ExemplarEditor, judge: Judge, batch: Mapping[str, Any], seeds: Sequence[int], inference: MaskInference
) -> tuple[list[tuple[Image.Image, ...]], Figures]:
    """Edit every scene of a batch twice: with the mask inferred in its box, and with the box itself.

    Returns:
        Scene, map, inferred mask, exemplar, edit with that mask and edit with the box, of one size, and for both MASKS
        <name>/iou etc.: see `mask_figures`, against the thing to be replaced,
        <name>/share: share of the box that is in the mask,
        <name>/class, <name>/background etc.: see `edit_and_judge`,
        <name>/surroundings: dB of finished pictures against scenes, inside the box outside the thing to be replaced.
    """
    found, scenes, boxes = infer_masks(editor, batch, inference), batch["image"], batch["mask"]
    beside, figures, edits = boxes * (1 - batch["visible"]), {}, []
    for name, used in zip(MASKS, (found, in_cells(found.map, boxes)), strict=True):
        pictures, judged = edit_and_judge(editor, judge, {**batch, "mask": used.mask}, seeds)
        edits.append(pictures)
        judged = {key.removeprefix("edit/"): values for key, values in judged.items()}
        own = {
            **mask_figures(used, batch["visible"]),
            "share": used.mask.sum((1, 2, 3)) / boxes.sum((1, 2, 3)),
            **judged,
            "surroundings": psnr(torch.cat([to_tensor(picture) for picture in pictures]), scenes, where=beside),
        }
        figures |= {f"{name}/{key}": values for key, values in own.items()}
    size = edits[0][0].size
    shown = zip(
        map(to_pil, scenes),
        [heat_map(values[0]) for values in F.interpolate(found.map, boxes.shape[-2:])],
        map(mask_picture, found.mask.split(1)),
        [exemplar.resize(size) for exemplar in batch["exemplar"]],
        *edits,
        strict=True,
    )
    return list(shown), figures


def summary(figures: Figures) -> dict[str, Any]:
    """Return [mean, standard error] of every figure; figures in dB are pooled over all pictures."""
    in_db = [f"{name}/{key}" for name in MASKS for key in DECIBELS]
    return {
        "figures": {name: mean(values) for name, values in figures.items() if name not in in_db},
        "pooled dB": {name: pooled_psnr(figures[name]) for name in in_db},
    }


def mask_table(report: Mapping[str, Any]) -> str:
    """Format a report, with its summary and the chance levels of the judge's heads, as a table."""
    figures, pooled = report["figures"], report["pooled dB"]
    lines = [
        "against the thing in the box" + "".join(f"{title:>16}" for title in ("IoU", "IoU in pixels", "% of the box"))
    ]
    for name, title in MASKS.items():
        cells = [(figures[f"{name}/{key}"], scale) for key, scale in (("iou", 1), ("pixel iou", 1), ("share", 100))]
        shown = (
            f"{scale * value:.{1 if scale > 1 else 3}f} ± {scale * error:.{1 if scale > 1 else 3}f}"
            for (value, error), scale in cells
        )
        lines.append(f"{title:28}" + "".join(f"{text:>16}" for text in shown))
    lines += ["", judged_table(figures, MASKS, list(report["chance"].values())), ""]
    for name, title in MASKS.items():
        kept, beside = (pooled[f"{name}/{key}"] for key in DECIBELS)
        lines.append(
            f"{title:28}{kept:8.2f} dB outside it, {beside:6.2f} dB after compositing in the box beside the thing"
        )
    return "\n".join(lines)
