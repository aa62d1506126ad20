"""Files of a DiffEdit: `results/`, `source/` (image and mask), `grid/`, and optionally `map/` and `overlay/`."""

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
    """Write the edits of `image`, one per prompt, and return the paths, first those of `results/<name>_0000.png` etc.

    The number is the same in all folders and new in all of them: nothing is overwritten.

    Args:
        prompts: the targets.
        record: stored in each picture together with the prompt and the settings.
        figures: measurements of each edit, stored in its pictures too.
        show_map: also write map and overlay as files; the grid shows them in any case.
    """
    first, figures = _next_id(folder, name), figures or [{}] * len(prompts)
    record = {**record, **asdict(result.settings)}
    heats = [heat_map(values) for values in result.maps] or [None] * len(prompts)
    overlays = [overlay(image, mask) for mask in result.masks]
    parts = zip(prompts, figures, result.images, result.masks, heats, overlays, strict=True)
    paths: dict[str, list[Path]] = {kind: [] for kind in FOLDERS}

    def save(kind: str, picture: Image.Image, stem: str, settings: Mapping[str, Any]) -> None:
        paths[kind].append(folder / kind / f"{stem}.png")
        save_png(picture, paths[kind][-1], settings)

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
    """Write the maps of an edit that was not made, `map/<name>_0000.png` etc. numbered like edits; return the paths."""
    first = _next_id(folder, name)
    paths = [folder / "map" / f"{_stem(name, first + i)}.png" for i in range(len(maps))]
    for path, values, prompt in zip(paths, maps, prompts, strict=True):
        save_png(heat_map(values), path, {**record, "prompt": prompt})
    return paths


def round_trips(editor: DiffEdit, inversions: Sequence[Inversion], callback: Progress | None = None) -> list[float]:
    """Measure the PSNR in dB between the reconstruction from each inversion and the autoencoder's reconstruction.

    It shows how much the inversion changes the edits' background before compositing. An inversion that occurs several
    times is reconstructed once.
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
    """Stack pictures vertically."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet
