"""Dataclasses that check their values on construction, with one-line errors."""

import functools
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import pydantic

from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

T = TypeVar("T")

CONFIG = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
EXPECTED = {  # by pydantic's type of error
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}


@dataclass_transform(frozen_default=True)
def checked(cls: type[T]) -> type[T]:
    """Turn a class into a frozen dataclass whose fields pydantic checks strictly against their annotations.

    Bounds are part of the annotations: `Annotated[int, pydantic.Field(ge=1)]`; choices are a `Literal`.

    Raises:
        UserError: by the constructor, for the first key that is misspelt or value that is wrong or missing.
    """
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=CONFIG)(cls)
    validate = made.__init__

    @functools.wraps(validate)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            validate(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            errors = error.errors()
            unknown = [one for one in errors if one["type"] == "unexpected_keyword_argument"]  # explains a missing one
            raise UserError(_in_words([*unknown, *errors][0], made)) from None

    made.__init__ = __init__
    return made


def _in_words(error: Mapping[str, Any], cls: Any) -> str:
    """Describe an error of pydantic by the field's name, what was found and what was expected."""
    own = error.get("ctx", {}).get("error")
    if isinstance(own, UserError):  # raised by the class's own __post_init__
        return str(own)
    fields = cls.__pydantic_fields__
    (first, *_), found, kind = error["loc"], error["input"], error["type"]
    name = list(fields)[first] if isinstance(first, int) else first  # an index where it was given by position
    if kind == "unexpected_keyword_argument":
        return f"{name}: unknown key; {nearest(name, fields)}"
    if kind == "missing":
        return f"{name}: missing"
    if kind == "literal_error":
        choices = [choice for choice in _literals(fields[name].annotation) if choice is not None]
        return f"{name} {found!r}: expected one of {', '.join(map(str, choices))}"
    expected = EXPECTED.get(kind, "").format(**error.get("ctx", {})) or error["msg"]
    shown = f"{found:g}" if isinstance(found, float) and not kind.endswith("_type") else repr(found)
    return f"{name} {shown}: expected {expected}"


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for inner in get_args(annotation) for value in _literals(inner)]
