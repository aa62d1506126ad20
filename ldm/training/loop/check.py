"""The top level of a training config, checked before anything is built."""

from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from ldm.utils.checked import checked
from ldm.utils.errors import UserError
from ldm.utils.project import find_file

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Steps = Annotated[int, Field(gt=0)]


@checked
class TrainingConfig:
    """The keys of a training config, explained in configs/train/defaults.yaml; the others are for interpolation."""

    training: dict[str, Any]
    data: dict[str, Any]
    trainer: dict[str, Any]
    seed: Any = None
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    weights: Literal["float32", "float16", "bfloat16"] = "float32"
    pretrained_model: str | None = None
    clip: str | None = None
    frozen: list[str] | None = None
    validate_every: Steps | None = None
    panel_every: Steps | None = None
    save_every: Annotated[float, Field(ge=0)] | None = 5
    monitor: Any = None
    wandb: Any = None
    model: Any = None
    dataset: Any = None
    recipe: Any = None
    source: Any = None
    checkpoint: Any = None

    def __post_init__(self):
        if (best := self.monitor) is not None:
            if not (isinstance(best, dict) and best.keys() == {"metric", "mode"} and best["mode"] in ("min", "max")):
                raise UserError(f"monitor {best}: expected {{metric: NAME, mode: min or max}}, or null")
        files = {"pretrained_model": [self.pretrained_model], "clip": [self.clip], "frozen": self.frozen or []}
        for key, names in files.items():
            for path in map(find_file, filter(None, names)):
                if not path.is_file():
                    raise UserError(f"{key} {path}: no such file")


def check(config: DictConfig) -> TrainingConfig:
    """Check the keys, types and ranges of a training config, and that its files exist.

    Raises:
        UserError: a key is unknown or missing, a value is not allowed, or a file does not exist.
    """
    return TrainingConfig(**OmegaConf.to_container(config, resolve=True))
