"""Files of an edit, in the folders of Paint by Example's script: `results/`, `source/` and `grid/`."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ldm.editors.exemplar import EditResult
from ldm.runs.outputs import labelled_row
from ldm.utils.overlay import heat_map
from ldm.utils.png import save_png


def save_edit(
    result: EditResult,
    image: Image.Image,
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    save: bool,
    grid: bool,
    found: Tensor | None = None,
) -> list[Path]:
    """Write an edit of `image`, and return the paths of the results, `results/<name>_<seed>.png`.

    Args:
        record: stored in each picture together with the edit's settings and the picture's own seed.
        save: write the results and, once per batch, the inputs.
        grid: write scene, mask, masked scene, exemplar as encoded and the results in one row.
        found: the map (H, W) in [0, 1] of an inferred mask, written with the inputs and shown in the grid.
    """
    first = f"{name}_{result.seeds[0]}"
    paths = [folder / "results" / f"{name}_{seed}.png" for seed in result.seeds]
    if save:
        for path, picture, seed in zip(paths, result.images, result.seeds, strict=True):
            save_png(picture, path, {**record, **asdict(replace(result.settings, seed=seed, n_samples=1))})
        sources = {"GT": image, "mask": result.mask, "inpaint": result.masked}
        numbers = range(1, 1 + len(result.exemplars)) if len(result.exemplars) > 1 else [""]
        sources |= {f"ref{number}": picture for number, picture in zip(numbers, result.exemplars, strict=True)}
        for kind, picture in sources.items():
            save_png(picture, folder / "source" / f"{first}_{kind}.png")
        if found is not None:
            save_map(found, folder, name, result.seeds[0], record)
    if grid:
        inputs = [
            ("image", image),
            *([] if found is None else [("map", heat_map(found))]),
            ("mask", result.mask),
            ("masked", result.masked),
            *(("exemplar as encoded", picture) for picture in result.exemplars),
        ]
        results = [(f"seed {seed}", picture) for seed, picture in zip(result.seeds, result.images, strict=True)]
        row = labelled_row([*inputs, *results])
        save_png(row, folder / "grid" / f"grid-{first}.png", {**record, **asdict(result.settings)})
    return paths if save else []


def save_map(found: Tensor, folder: Path, name: str, seed: int, record: Mapping[str, Any]) -> Path:
    """Write the map (H, W) in [0, 1] of an edit, made or not, into `source/`, and return its path."""
    path = folder / "source" / f"{name}_{seed}_map.png"
    save_png(heat_map(found), path, record)
    return path
