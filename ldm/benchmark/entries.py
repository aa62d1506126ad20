"""Entries of a benchmark's config: mappings to dataclasses, refused by name where they do not fit."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

T = TypeVar("T")


def mapping(values: Any, where: str) -> Mapping[str, Any]:
    """The same.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: {values!r}, expected keys and their values")
    return values


def make_entry(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass of what a config says.

    Args:
        where: the config says it, for messages: "rows[2]".

    Raises:
        UserError: it says something else, an unknown key, or one is missing.
    """
    known = {field.name: field for field in fields(kind) if field.init}
    for key in mapping(values, where):
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {nearest(key, known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where}: no {name}")
    return kind(**values)


def row_settings(read: Callable[..., T], row: Any, where: str) -> T:
    """Settings of a row: its `edit` is the name of a file (by default `default`), and the rest differs from that.

    Args:
        read: the method of a class of `ldm.presets`.
        where: as in `make_entry`.

    Raises:
        UserError: no such file, an unknown key or a wrong value.
    """
    changes = dict(mapping(row, where))
    name = str(changes.pop("edit", "default"))  # YAML reads `no` as a truth value
    try:
        return read(name, **changes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
