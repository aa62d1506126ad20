"""Config files of another code by a table of their keys: what each says here, or why it says nothing."""

import json
from typing import Any

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

Flat = dict[str, Any]  # by dotted keys


class Left(str):
    """Why a key is left out."""


def flat(node: Any, prefix: str = "") -> Flat:
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {name: leaf for key, value in node.items() for name, leaf in flat(value, f"{prefix}{key}.").items()}


def each(names: str, rule: Any) -> dict:
    """One rule for several keys; {} in it stands for the name."""
    return {name: type(rule)(rule.format(name)) if isinstance(rule, str) else rule for name in names.split()}


def apply(table: Flat, theirs: Flat, file: str) -> tuple[Flat, dict[str, str]]:
    """Their values by our dotted keys; and what is left out, and why.

    Args:
        table: rules by the keys of an original file, or by `section.*`. A string is our key, a tuple are the only
            values allowed, a `Left` leaves the key out, and a function of the value and of the whole file translates:
            to values by our keys, or to a `Left`.
        theirs: what the file says, with the defaults of its code where it says nothing.
        file: its name, for errors.

    Raises:
        UserError: a key is unknown, or says what this code cannot do.
    """
    values, left = {}, {}
    for key, value in theirs.items():
        sections = (f"{key[:dot]}.*" for dot in reversed(range(len(key))) if key[dot] == ".")
        name = next((name for name in (key, *sections) if name in table), None)
        rule = table.get(name)
        try:
            if rule is None and (value is not None or not any(name.startswith(f"{key}.") for name in table)):
                raise ValueError(f"unknown key; {nearest(key, table)}")  # an empty section is none
            if callable(rule):
                rule = rule(value, theirs)
            if isinstance(rule, Left):
                left[name.removesuffix(".*")] = str(rule)
            elif isinstance(rule, str):
                values[rule] = value
            elif isinstance(rule, dict):
                values |= rule
            elif isinstance(rule, tuple) and value not in rule:
                raise ValueError(f"expected {' or '.join(map(json.dumps, rule))}")
        except (LookupError, TypeError, ValueError) as error:
            what = error if isinstance(error, ValueError) else "this code has no such thing"
            raise UserError(f"config {file}: {key} {json.dumps(value, default=str)}: {what}") from error
    return values, left
