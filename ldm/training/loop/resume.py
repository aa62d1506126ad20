"""The check that a resumed run keeps its config, except for keys that do not affect what is learned."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ldm.config import MOVED, plain
from ldm.utils.errors import UserError

# All other keys of `trainer` concern the machine, the length of the run or its reports.
TRAINER = ("trainer.gradient_clip_*", "trainer.overfit_batches")
FREE = (
    "trainer.*",
    "data.params.num_workers",
    "data.params.batch_per_device",
    "*.use_checkpoint",
    "*.panel_steps",
    "*.panel_guidance",
    "checkpoint",
    "monitor",
    "monitor.*",
    "panel_every",
    "save_every",
    "source",
    "source.*",
    "validate_every",
    "wandb",
    "weights",
)
START = ("pretrained_model", "clip")  # may be left out of a resumed run's config


def refuse_changes(config: DictConfig, file: Path) -> None:
    """Compare a config with the one that a run started with, `file`.

    Raises:
        UserError: a key differs that must not; the message lists the first three such keys with both values.
    """
    if not file.exists():
        return
    before, now = (dict(_leaves(plain(c, resolve=True))) for c in (OmegaConf.load(file), config))
    changed = [
        f"{key}: {before.get(key)} in the run, {now.get(key)} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _is_free(key) and not (key in START and now.get(key) is None)
    ]
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(f"--resume: the config differs from that of {file.parent}: {'; '.join(changed[:3])}{more}")


def _is_free(key: str) -> bool:
    return any(fnmatchcase(key, name) for name in FREE) and not any(fnmatchcase(key, name) for name in TRAINER)


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, MOVED.get(node, node) if key.endswith("target") else node
