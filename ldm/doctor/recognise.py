"""Recognition of the config that fits a file of weights."""

from collections.abc import Sequence
from pathlib import Path

from ldm.checkpoints.io import read_tensors
from ldm.doctor.file import known_models, nearest_model
from ldm.utils.errors import UserError


def config_of(files: Sequence[Path]) -> str:
    """Return the name in `configs/` of the networks that are in a file, or in several together.

    Raises:
        UserError: no config is known for them.
    """
    tensors = {name: tensor for file in files for name, tensor in read_tensors(file).items()}
    known, finding = nearest_model(tensors, known_models())
    if known is None or known.config is None or finding.status != "ok":
        raise UserError(f"--ckpt {', '.join(map(str, files))}: {finding.short or finding.text}; name its --config")
    return known.config
