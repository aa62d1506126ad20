"""Edits of small scenes by their captions, with DiffEdit, and measurements on them.

A batch is made by `ldm.toyworld.scenes.collate` from items of `ldm.toyworld.scenes.CaptionScenes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.editors.compose import distance
from ldm.editors.diffedit import DiffEdit
from ldm.editors.mask_inference import InferredMask
from ldm.evaluation.metrics import iou, mean, pooled_psnr, psnr
from ldm.studies.judging import Figures, finish, judged, judged_table, round_trip
from ldm.toyworld.judge import Judge
from ldm.utils.image import to_pil, to_tensor

ROWS = {
    "edit": "edits",
    "unchanged": "before the edit",
    "real": "things as drawn",
    "round trip": "after one round trip",
}
BACKGROUND = {"background": "outside the mask", "beyond the feather": "beyond the feather"}
SOURCES = ("caption", "empty")  # the text that the target is compared with: the scene's caption, or nothing


@dataclass(frozen=True)
class Example:
    """An example of an edit; all pictures have the scene's size."""

    scene: Image.Image
    map: Image.Image
    mask: Image.Image
    edit: Image.Image
    words: str  # "a red ball -> a blue ball"


def infer_masks(editor: DiffEdit, batch: Mapping[str, Any], source: str) -> InferredMask:
    """Infer the editor's masks for a batch; `source` is one of SOURCES."""
    sources = batch["source"] if source == "caption" else [""] * len(batch["source"])
    return editor.infer_mask(batch["image"], sources, batch["target"])


def mask_figures(found: InferredMask, mask: Tensor) -> Figures:
    """Compare inferred masks with those of the things, (B, 1, H, W).

    Returns:
        iou: at the latents' size, where a cell belongs to a thing that covers at least half of it,
        pixel iou: at the pictures' size,
        no mask: whether the inferred mask is empty.
    """
    cells = F.interpolate(mask, found.latent.shape[-2:], mode="area") >= 0.5
    return {
        "iou": iou(found.latent, cells),
        "pixel iou": iou(found.mask, mask),
        "no mask": ~found.mask.flatten(1).any(1),
    }


@torch.no_grad()
def edit_and_judge(
    editor: DiffEdit, judge: Judge, batch: Mapping[str, Any], source: str
) -> tuple[list[Example], Figures]:
    """Edit every scene of a batch to its target, and measure the edits.

    Args:
        source: the one of SOURCES whose masks are used; those of the other are only measured.

    Returns:
        The finished edits, composited by the editor's settings, and
        caption/..., empty/...: the figures of the masks for each of SOURCES,
        edit/class, edit/colour, edit/pattern, edit/all: whether the box shows what it should; False without a mask,
        unchanged/class etc.: the same for the scenes before the edit,
        background: dB outside the mask that was used, before compositing, against the scene; NaN without a mask,
        beyond the feather: the same for the pixels that compositing keeps unchanged,
        background, round trip and beyond the feather, round trip: dB of the autoencoder alone on the same pixels,
        inversion: dB between the decoded latents of the scene and their reconstruction from the inversion,
        exact: whether the picture equals the scene outside the mask and its feather, byte for byte.
    """
    settings, scenes = editor.settings, batch["image"]
    masks = {name: infer_masks(editor, batch, name) for name in SOURCES}
    figures = {
        f"{name}/{figure}": values
        for name, found in masks.items()
        for figure, values in mask_figures(found, batch["mask"]).items()
    }
    used, empty = masks[source], figures[f"{source}/no mask"]

    inversion = editor.invert(scenes)
    z = editor.edit(inversion, used.latent, batch["target"])
    edited, kept, back = (
        editor.decode(latents).clamp(-1, 1) for latents in (z, inversion.latents[0], editor.reconstruct(inversion))
    )
    pictures, exact = finish(edited, scenes, used.mask, settings)
    right = judged("edit", judge, torch.cat([to_tensor(picture) for picture in pictures]), batch["box"], batch)
    far = torch.cat([distance(mask, settings.feather) for mask in used.mask.split(1)])
    backgrounds = {"background": used.mask == 0, "beyond the feather": far > settings.feather}
    for name, where in backgrounds.items():
        counted = torch.where(empty.view(-1, 1, 1, 1), torch.nan, where.double())
        figures[name] = psnr(edited, scenes, where=counted)
        figures[f"{name}, round trip"] = psnr(kept, scenes, where=counted)
    figures |= {
        **{name: answers & ~empty for name, answers in right.items()},
        **judged("unchanged", judge, scenes, batch["box"], batch),
        "inversion": psnr(back, kept),
        "exact": exact,
    }
    return _examples(batch, used, pictures), figures


def _examples(batch: Mapping[str, Any], used: InferredMask, pictures: Sequence[Image.Image]) -> list[Example]:
    size = used.mask.shape[-2:]
    maps, masks = (
        [to_pil((2 * grey - 1).expand(3, -1, -1)) for grey in F.interpolate(greys, size)]
        for greys in (used.map, used.mask)
    )
    words = [
        " -> ".join(batch[text][i].split(" and ")[place] for text in ("source", "target"))
        for i, place in enumerate(batch["thing"].tolist())
    ]
    return [Example(*parts) for parts in zip(map(to_pil, batch["image"]), maps, masks, pictures, words, strict=True)]


@torch.no_grad()
def references(editor: DiffEdit, judge: Judge, things: Mapping[str, Any]) -> Figures:
    """Judge the references of the edits: real/... as drawn, round trip/... after the model's autoencoder.

    Args:
        things: a batch of items of `ldm.toyworld.scenes.draw_things`.
    """
    images, boxes = things["image"], things["box"]
    return {
        **judged("real", judge, images, boxes, things),
        **judged("round trip", judge, round_trip(editor, images), boxes, things),
    }


def summary(values: Figures) -> dict[str, Any]:
    """Summarise the figures of all edits and references for a report, leaving out NaN."""
    known = {name: figures[~figures.isnan()] for name, figures in values.items() if name != "exact"}
    known = {name: figures for name, figures in known.items() if len(figures)}
    return {
        "figures": {name: mean(figures) for name, figures in known.items()},  # [mean, standard error]
        "pooled dB": {
            name: pooled_psnr(figures) for name, figures in known.items() if name.startswith(tuple(BACKGROUND))
        },
        "no mask": {name: int(values[f"{name}/no mask"].sum()) for name in SOURCES},
        "exact": f"{int(values['exact'].sum())} of {len(values['exact'])}",
    }


def edit_table(summary: Mapping[str, Any], chance: Sequence[float]) -> str:
    """Format a summary as a table."""
    figures = summary["figures"]
    lines = [judged_table(figures, ROWS, chance), "", f"{'masks; source:':24}" + "".join(f"{s:>16}" for s in SOURCES)]
    for row, title in {"iou": "IoU, latent cells", "pixel iou": "IoU, pixels"}.items():
        cells = [figures[f"{source}/{row}"] for source in SOURCES]
        lines.append(f"{title:24}" + "".join(f"{value:8.3f} ± {error:.3f}" for value, error in cells))
    lines.append(f"{'empty (failed edits)':24}" + "".join(f"{summary['no mask'][source]:16}" for source in SOURCES))
    lines += [
        "",
        f"{'before compositing, dB':24}{'edits':>16}{'autoencoder':>16}{'pooled: edits':>16}{'autoencoder':>16}",
    ]
    for row, title in BACKGROUND.items():
        if row in figures:
            names = (row, f"{row}, round trip")
            cells = "".join(f"{figures[name][0]:9.2f} ± {figures[name][1]:.2f}" for name in names)
            lines.append(f"{title:24}{cells}" + "".join(f"{summary['pooled dB'][name]:16.2f}" for name in names))
    decibels, error = figures["inversion"]
    lines += [
        "",
        f"after compositing, byte for byte the scene's beyond the feather: {summary['exact']}",
        f"inversion and back, against the autoencoder alone: {decibels:.2f} ± {error:.2f} dB",
    ]
    return "\n".join(lines)
