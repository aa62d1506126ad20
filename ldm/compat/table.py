"""Translation of another code's config files by a table: our value for each key, or why it is left out."""

import json
from typing import Any

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

Flat = dict[str, Any]  # by dotted keys


class Left(str):
    """The reason why a key is left out."""


def flat(node: Any, prefix: str = "") -> Flat:
    """Flatten nested mappings to dotted keys."""
    if not isinstance(node, dict):
        return {prefix[:-1]: node}
    return {name: leaf for key, value in node.items() for name, leaf in flat(value, f"{prefix}{key}.").items()}


def each(names: str, rule: Any) -> dict:
    """Use one rule for several keys; {} in it stands for the key."""
    return {name: type(rule)(rule.format(name)) if isinstance(rule, str) else rule for name in names.split()}


def apply(table: Flat, theirs: Flat, file: str) -> tuple[Flat, dict[str, str]]:
    """Translate a file; return values by our dotted keys, and the keys left out with reasons.

    Args:
        table: rules by the keys of an original file, or by `section.*`. A string is our key, a tuple lists the only
            values allowed, a `Left` leaves the key out, and a function of the value and the whole file returns values
            by our keys, or a `Left`.
        theirs: values of the file, with the defaults of its code.
        file: its name, for messages.

    Raises:
        UserError: a key is unknown, or its value is not supported.
    """
    values, left = {}, {}
    for key, value in theirs.items():
        sections = (f"{key[:dot]}.*" for dot in reversed(range(len(key))) if key[dot] == ".")
        name = next((name for name in (key, *sections) if name in table), "")
        rule = table.get(name)
        try:
            if rule is None and (value is not None or not any(name.startswith(f"{key}.") for name in table)):
                raise ValueError(f"unknown key; {nearest(key, table)}")  # an empty section is not a key
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
            what = error if isinstance(error, ValueError) else "not supported by this code"
            raise UserError(f"config {file}: {key} {json.dumps(value, default=str)}: {what}") from error
    return values, left
