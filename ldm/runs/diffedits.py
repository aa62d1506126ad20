"""A DiffEdit as files: `results/`, `source/` (image and mask), `grid/`, and if wanted `map/` and `overlay/`."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ldm.editors.diffedit import DiffEdit, DiffEditResult, Inversion, Progress
from ldm.evaluation.metrics import psnr
from ldm.runs.outputs import labelled_row
from ldm.utils.overlay import heat_map, overlay
from ldm.utils.png import next_number, save_png

FOLDERS = ("results", "source", "map", "overlay", "grid")
LABEL = 40  # characters of a prompt above its picture


def save_diffedit(
    result: DiffEditResult,
    image: Image.Image,
    prompts: Sequence[str],
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    figures: Sequence[Mapping[str, Any]] | None = None,
    show_map: bool = False,
) -> list[Path]:
    """Write an edit of `image` after each prompt; returns the paths, first of `results/<name>_0000.png` and on.

    The number is the same in all folders, and one that no folder has yet: nothing is written over.

    Args:
        prompts: the targets.
        record: written into each picture beside its prompt and the settings.
        figures: what was measured of each edit, written into its pictures too.
        show_map: write map and overlay as files too; the grid shows them in any case.
    """
    first, figures = _next_id(folder, name), figures or [{}] * len(prompts)
    record = {**record, **asdict(result.settings)}
    heats = [heat_map(values) for values in result.maps] or [None] * len(prompts)
    overlays = [overlay(image, mask) for mask in result.masks]
    parts = zip(prompts, figures, result.images, result.masks, heats, overlays, strict=True)
    paths: dict[str, list[Path]] = {kind: [] for kind in FOLDERS}

    def save(kind: str, picture: Image.Image, stem: str, of: Mapping[str, Any]) -> None:
        paths[kind].append(folder / kind / f"{stem}.png")
        save_png(picture, paths[kind][-1], of)

    rows = []
    for number, (prompt, figure, edited, mask, heat, tinted) in enumerate(parts, first):
        own, stem = {**record, "prompt": prompt, **figure}, _stem(name, number)
        save("results", edited, stem, own)
        save("source", image, f"{stem}_image", own)
        save("source", mask, f"{stem}_mask", own)
        if show_map:
            save("overlay", tinted, stem, own)
            if heat is not None:
                save("map", heat, stem, own)
        maps = [] if heat is None else [("map", heat)]
        label = textwrap.shorten(prompt, LABEL, placeholder="...") or prompt[:LABEL]
        rows.append(labelled_row([("image", image), *maps, ("mask", mask), ("overlay", tinted), (label, edited)]))
    save("grid", _stack(rows), f"grid-{_stem(name, first)}", {**record, "prompt": list(prompts)})
    return [path for kind in FOLDERS for path in paths[kind]]


def save_maps(
    maps: Sequence[Tensor], prompts: Sequence[str], folder: Path, name: str, record: Mapping[str, Any]
) -> list[Path]:
    """Write the maps of an edit that was not made: `map/<name>_0000.png` and on, numbered as an edit's; their paths."""
    first = _next_id(folder, name)
    paths = [folder / "map" / f"{_stem(name, first + i)}.png" for i in range(len(maps))]
    for path, values, prompt in zip(paths, maps, prompts, strict=True):
        save_png(heat_map(values), path, {**record, "prompt": prompt})
    return paths


def round_trips(editor: DiffEdit, inversions: Sequence[Inversion], callback: Progress | None = None) -> list[float]:
    """PSNR in dB of what comes back from each inversion against the autoencoder's own reconstruction of the picture.

    It says how far the edits' background is from the picture before compositing because of the inversion. An inversion
    that occurs several times is undone once.
    """
    measured: dict[int, float] = {}
    for inversion in inversions:
        if id(inversion) not in measured:
            back, kept = (
                editor.decode(z).clamp(-1, 1) for z in (editor.reconstruct(inversion, callback), inversion.latents[0])
            )
            measured[id(inversion)] = psnr(back, kept).item()
    return [measured[id(inversion)] for inversion in inversions]


def _next_id(folder: Path, name: str) -> int:
    return max(next_number(folder / kind, f"{name}_") for kind in FOLDERS)


def _stem(name: str, number: int) -> str:
    return f"{name}_{number:04}"


def _stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows of pictures below one another."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
