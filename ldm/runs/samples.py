"""Pictures made from noise as files, in the folders of Stable Diffusion's script: `samples/` and grids beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ldm.editors.pixel_sampling import SamplesResult
from ldm.editors.text_to_image import TextToImageResult
from ldm.utils.errors import UserError
from ldm.utils.files import read_text
from ldm.utils.png import next_number, save_png

GAP = 2  # pixels between the pictures of a grid


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file without the blank ones.

    Raises:
        UserError: it cannot be read, or there is no prompt in it.
    """
    lines = read_text(path, "prompts").splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"prompts {path}: there is none in it, expected one in each line")
    return prompts


def save_samples(result: TextToImageResult, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write pictures as `folder/samples/00000.png` and on, numbered on from what is there; returns their paths.

    Args:
        record: written into each picture beside what it alone is made again from.
    """
    told = [{"prompt": prompt, "negative_prompt": result.negative} for prompt in result.prompts]
    return _save(result, told, folder, record)


def save_unprompted(result: SamplesResult, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """The same for pictures that no prompt was needed for."""
    return _save(result, [{}] * len(result.images), folder, record)


def _save(
    result: TextToImageResult | SamplesResult,
    told: Sequence[Mapping[str, Any]],
    folder: Path,
    record: Mapping[str, Any],
) -> list[Path]:
    samples = folder / "samples"
    first = next_number(samples, "")
    paths = [samples / f"{first + i:05}.png" for i in range(len(result.images))]
    for path, picture, words, seed in zip(paths, result.images, told, result.seeds, strict=True):
        own = {**words, "H": picture.height, "W": picture.width}
        save_png(picture, path, {**record, **own, **asdict(replace(result.settings, seed=seed, n_samples=1))})
    return paths


def save_grid(pictures: Sequence[Image.Image], columns: int, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `folder/grid-0000.png`, or on from what is there: pictures of one size, so many in a row."""
    width, height = pictures[0].width + GAP, pictures[0].height + GAP
    rows, columns = -(-len(pictures) // columns), min(columns, len(pictures))
    grid = Image.new("RGB", (columns * width + GAP, rows * height + GAP))
    for i, picture in enumerate(pictures):
        grid.paste(picture, (i % columns * width + GAP, i // columns * height + GAP))
    path = folder / f"grid-{next_number(folder, 'grid-'):04}.png"
    save_png(grid, path, record)
    return path
