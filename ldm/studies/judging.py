"""Helpers for measuring many edits: compositing, a judge's answers, tables, grids of pictures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ldm.editors.compose import composite_into, distance, whole
from ldm.editors.editor import Editor
from ldm.presets import Compositing
from ldm.toyworld.judge import Judge
from ldm.utils.image import to_pil

HEADS = ("class", "colour", "pattern")
Figures = dict[str, Tensor]  # name -> (B,), bool where it is an answer


def finish(edited: Tensor, scenes: Tensor, masks: Tensor, settings: Compositing) -> tuple[list[Image.Image], Tensor]:
    """Composite edits (B, 3, H, W) into their scenes by the settings, and return whether each is exact (B,).

    Exact: the picture equals the scene outside the mask and its feather, byte for byte.
    """
    pictures, exact = [], []
    for edit, scene, mask in zip(edited.split(1), map(to_pil, scenes), masks.split(1), strict=True):
        (picture,) = composite_into(edit, scene, mask, whole(mask), settings)
        kept = (distance(mask, settings.feather) > settings.feather)[0, 0].numpy()
        pictures.append(picture)
        exact.append(np.array_equal(np.asarray(picture)[kept], np.asarray(scene)[kept]))
    return pictures, torch.tensor(exact)


def judged(name: str, judge: Judge, images: Tensor, boxes: Tensor, batch: Mapping[str, Any]) -> Figures:
    """Return the judge's answers on the things in boxes: name/class, name/colour, name/pattern, name/all."""
    right = judge.correct(images, boxes, {head: batch[head] for head in HEADS})
    return {f"{name}/{head}": answers for head, answers in right.items()}


def join(parts: Sequence[Figures]) -> Figures:
    """Concatenate the figures of batches."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def round_trip(editor: Editor, images: Tensor) -> Tensor:
    """Encode pictures by the posterior's mode and decode them, on the CPU."""
    return editor.decode(editor.encode(images)).clamp(-1, 1)


def judged_table(figures: Mapping[str, tuple[float, float]], rows: Mapping[str, str], chance: Sequence[float]) -> str:
    """Format shares of right answers in percent, with standard errors, as a table.

    Args:
        figures: name/class etc. -> share and standard error.
        rows: name -> title.
        chance: chance level of each of HEADS.
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
    """Draw groups of equally large pictures, `columns` groups in a row, enlarged `scale` times (bicubic).

    Args:
        words: captions below the groups, if any.
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
