"""Names and shapes of the published checkpoints, which ship with the package (`manifests/`)."""

import gzip
import json
from pathlib import Path

FOLDER = Path(__file__).parent / "manifests"


def read_manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Read {key: shape} of a published checkpoint, in its order, from `manifests/<name>.json.gz`.

    The names are `paint_by_example` (its model.ckpt), `sd_v1` (sd-v1-4.ckpt), and of guided-diffusion at 256 pixels
    `guided_256` (unconditional), `guided_256_class` and `guided_256_classifier`.
    """
    shapes = json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    return {key: tuple(shape) for key, shape in shapes.items()}
