"""Values of a benchmark's config as checked dataclasses; messages say where in the config a value stands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from ldm.checkpoints.open import load
from ldm.utils.checked import checked
from ldm.utils.errors import UserError

T = TypeVar("T")


@checked
class ModelConfig:
    """A model, its weights and its precision, as `ldm.load` takes them.

    Attributes:
        config: a config file, or its name.
        checkpoint: the weights, by default those that the config names.
    """

    config: str
    checkpoint: str | Sequence[str] | None = None
    precision: str = "auto"

    def load(self, device: torch.device) -> nn.Module:
        """Load the model; errors are those of `ldm.load`."""
        return load(self.config, self.checkpoint, device, self.precision)


def mapping(values: Any, where: str) -> Mapping[str, Any]:
    """Check that a value of a config is a mapping, and return it with its keys as strings.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected a mapping, found {values!r}")
    return {str(key): value for key, value in values.items()}  # YAML reads the key `no` as a boolean


def make_entry(make: Callable[..., T], values: Any, where: str) -> T:
    """Build an object from a mapping of its arguments.

    Args:
        make: a class made by `checked`, or another function that refuses wrong arguments.
        where: the mapping's place in the config, for messages: "rows[2]".

    Raises:
        UserError: it is not a mapping, a key is unknown or missing, or a value is wrong.
    """
    arguments = mapping(values, where)
    try:
        return make(**arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def row_settings(read: Callable[..., T], row: Any, where: str) -> T:
    """Return the settings of a row: `edit` names a preset (`default` if absent), the other keys change it.

    Args:
        read: `read` of a class of `ldm.presets`.
        where: see `make_entry`.

    Raises:
        UserError: there is no such preset, a key is unknown or a value is wrong.
    """
    return make_entry(lambda edit="default", **changes: read(str(edit), **changes), row, where)
