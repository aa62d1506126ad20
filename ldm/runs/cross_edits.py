"""Edits of many small scenes at once, each with an exemplar of its own, and what a judge says of them.

A batch is what `ldm.data.toyworld_cross.collate` makes: image (B, 3, H, W) in [-1, 1], sides multiples of the model's;
mask (B, 1, H, W), 1 = repaint; box (B, 4) in pixels, where the judge looks; exemplar, B pictures; donor and donor_box,
where the exemplars come from; HEADS, (B,) int64, what the exemplars show.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm.editors.compose import distance, lay_in, whole
from ldm.editors.editor import Editor
from ldm.editors.exemplar import ExemplarEditor, exemplar_pixels, fit_exemplar
from ldm.editors.settings import Compositing
from ldm.evaluation.judge import Judge
from ldm.evaluation.metrics import psnr
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.random import NoiseSource

HEADS = ("class", "colour", "pattern")
Figures = dict[str, Tensor]  # name -> (B,), bool where it is an answer


@torch.no_grad()
def edit_and_judge(
    editor: ExemplarEditor, judge: Judge, batch: Mapping[str, Any], seeds: Sequence[int]
) -> tuple[list[Image.Image], Figures]:
    """Edit every scene of a batch with its own exemplar and seed: an edit is the same in every batch.

    Returns:
        The pictures as a user gets them, composited as the editor's settings say, and
        edit/class, edit/colour, edit/pattern, edit/all: whether the box shows what the exemplar does,
        background: dB outside the mask, before compositing, against the scene,
        exact: whether the picture is the scene outside the mask and its feather, byte for byte.
    """
    settings, pixels = editor.settings, encoder_input(editor, batch["exemplar"])
    scenes, masks = batch["image"], batch["mask"]
    edited = editor.decode(editor.sample(scenes, masks, pixels, NoiseSource(seeds), settings)).clamp(-1, 1)

    pictures, exact = finish(edited, scenes, masks, settings)
    figures = {"background": psnr(edited, scenes, where=1 - masks), "exact": exact}
    shown = torch.cat([to_tensor(picture) for picture in pictures])
    return pictures, judged("edit", judge, shown, batch["box"], batch) | figures


@torch.no_grad()
def references(editor: ExemplarEditor, judge: Judge, batch: Mapping[str, Any]) -> Figures:
    """What the edits are to be compared with.

    Returns:
        real/class and so on: the judge on the exemplars' own scenes, as drawn,
        round trip/class and so on: the same after the model's autoencoder,
        background round trip: dB outside the mask of the scenes after the autoencoder.
    """
    donors, scenes = (round_trip(editor, batch[name]) for name in ("donor", "image"))
    return {
        **judged("real", judge, batch["donor"], batch["donor_box"], batch),
        **judged("round trip", judge, donors, batch["donor_box"], batch),
        "background round trip": psnr(scenes, batch["image"], where=1 - batch["mask"]),
    }


def encoder_input(editor: ExemplarEditor, exemplars: Sequence[Image.Image]) -> Tensor:
    """Exemplars -> (B, 3, S, S), fitted as the editor's settings say."""
    fit, size = editor.settings.exemplar_fit, editor.model.conditioner.image_size
    squares = [fit_exemplar(exemplar, size, fit) for exemplar in exemplars]
    return torch.cat([exemplar_pixels(square, fit == "original") for square in squares])


def finish(edited: Tensor, scenes: Tensor, masks: Tensor, settings: Compositing) -> tuple[list[Image.Image], Tensor]:
    """Edits (B, 3, H, W) laid into their scenes as the settings say, and whether each is exact (B,) (see above)."""
    pictures, exact = [], []
    for edit, scene, mask in zip(edited.split(1), map(to_pil, scenes), masks.split(1), strict=True):
        (picture,) = lay_in(edit, scene, mask, whole(mask), settings)
        kept = (distance(mask, settings.feather) > settings.feather)[0, 0].numpy()
        pictures.append(picture)
        exact.append(np.array_equal(np.asarray(picture)[kept], np.asarray(scene)[kept]))
    return pictures, torch.tensor(exact)


def judged(name: str, judge: Judge, images: Tensor, boxes: Tensor, batch: Mapping[str, Any]) -> Figures:
    """name/class, name/colour, name/pattern, name/all: what the judge says of the things in the boxes."""
    right = judge.correct(images, boxes, {head: batch[head] for head in HEADS})
    return {f"{name}/{head}": answers for head, answers in right.items()}


def join(parts: Sequence[Figures]) -> Figures:
    """The figures of batches, one after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def round_trip(editor: Editor, images: Tensor) -> Tensor:
    """Through the autoencoder, by the posterior's mean, and back, on the CPU."""
    autoencoder = editor.model.autoencoder
    z = autoencoder.encode(images.to(editor.like)).mode()
    return autoencoder.decode(z).float().cpu().clamp(-1, 1)


def judged_table(figures: Mapping[str, tuple[float, float]], rows: Mapping[str, str], chance: Sequence[float]) -> str:
    """Shares of right answers in percent, with standard errors.

    Args:
        figures: name/class and so on -> share and standard error.
        rows: name -> title.
        chance: of each of HEADS.
    """
    heads = (*HEADS, "all")
    lines = [f"{'judge says right, %':24}" + "".join(f"{head:>14}" for head in heads)]
    for row, title in rows.items():
        cells = [figures[f"{row}/{head}"] for head in heads]
        lines.append(f"{title:24}" + "".join(f"{100 * share:8.1f} ± {100 * error:3.1f}" for share, error in cells))
    lines.append(f"{'chance':24}" + "".join(f"{100 * share:8.1f}      " for share in (*chance, math.prod(chance))))
    return "\n".join(lines)


def example_grid(
    examples: Sequence[Sequence[Image.Image]], columns: int, scale: int, words: Sequence[str] = ()
) -> Image.Image:
    """Groups of pictures of one size, `columns` groups in a row, enlarged `scale` times (bicubic).

    Below each group there may be words.
    """
    font = ImageFont.load_default(size=16)
    side, gap, line = scale * examples[0][0].width, 8, sum(font.getmetrics()) if words else 0
    cell, rows = len(examples[0]) * side + 2 * gap, -(-len(examples) // columns)
    step = side + line + gap
    sheet = Image.new("RGB", (min(columns, len(examples)) * cell - 2 * gap, rows * step - gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, example in enumerate(examples):
        row, column = divmod(i, columns)
        for k, picture in enumerate(example):
            enlarged = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (column * cell + k * side, row * step))
        if words:
            draw.text((column * cell, row * step + side), words[i], fill="black", font=font)
    return sheet
