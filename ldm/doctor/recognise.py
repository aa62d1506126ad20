"""Recognition of the config that fits a file of weights."""

from collections.abc import Sequence
from pathlib import Path

from ldm.checkpoints.io import read_tensors
from ldm.doctor.file import known_models, nearest_model


def config_of(files: Sequence[Path]) -> str | None:
    """Return the name in `configs/` of the networks that are in a file, or in several together; None if unknown."""
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    known, finding = nearest_model(tensors, known_models())
    return known.config if known is not None and finding.status == "ok" else None
