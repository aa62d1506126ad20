"""Files of pictures made from noise, in the folders of Stable Diffusion's script: `samples/` and grids beside it."""

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
    """Read prompts from a text file, one per line, skipping blank lines.

    Raises:
        UserError: it cannot be read, or contains no prompt.
    """
    lines = read_text(path, "prompts").splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"prompts {path}: contains no prompts, expected one per line")
    return prompts


def save_samples(result: TextToImageResult, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write pictures as `folder/samples/00000.png` etc., numbered after existing files, and return their paths.

    Args:
        record: stored in each picture together with what is needed to make this picture again.
    """
    prompts = [{"prompt": prompt, "negative_prompt": result.negative} for prompt in result.prompts]
    return _save(result, prompts, folder, record)


def save_unprompted(result: SamplesResult, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write pictures made without a prompt, as `save_samples` does."""
    return _save(result, [{}] * len(result.images), folder, record)


def _save(
    result: TextToImageResult | SamplesResult,
    prompts: Sequence[Mapping[str, Any]],
    folder: Path,
    record: Mapping[str, Any],
) -> list[Path]:
    samples = folder / "samples"
    first = next_number(samples, "")
    paths = [samples / f"{first + i:05}.png" for i in range(len(result.images))]
    for path, picture, prompt, seed in zip(paths, result.images, prompts, result.seeds, strict=True):
        own = {**prompt, "H": picture.height, "W": picture.width}
        save_png(picture, path, {**record, **own, **asdict(replace(result.settings, seed=seed, n_samples=1))})
    return paths


def save_grid(pictures: Sequence[Image.Image], columns: int, folder: Path, record: Mapping[str, Any]) -> Path:
    """Write a grid of equally large pictures as `folder/grid-0000.png`, or the next free number; return its path."""
    width, height = pictures[0].width + GAP, pictures[0].height + GAP
    rows, columns = -(-len(pictures) // columns), min(columns, len(pictures))
    grid = Image.new("RGB", (columns * width + GAP, rows * height + GAP))
    for i, picture in enumerate(pictures):
        grid.paste(picture, (i % columns * width + GAP, i // columns * height + GAP))
    path = folder / f"grid-{next_number(folder, 'grid-'):04}.png"
    save_png(grid, path, record)
    return path
