"""Entries of a benchmark's config: mappings to dataclasses, refused by name where they do not fit."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

T = TypeVar("T")


def make_entry(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass of what a config says.

    Args:
        where: the config says it, for messages: "rows[2]".

    Raises:
        UserError: an unknown key, or one is missing.
    """
    known = {field.name: field for field in fields(kind) if field.init}
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}: no {name}")
    return kind(**values)
