"""Dataclasses that check their values when they are made, and say in one line what is wrong."""

import functools
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
    "string_type": "a text",
    "dict_type": "a mapping",
    "list_type": "a list",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}


@dataclass_transform(frozen_default=True)
def checked(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are checked against their annotations, strictly, by pydantic.

    Bounds stand in the annotations: `Annotated[int, pydantic.Field(ge=1)]`; choices are a `Literal`.

    Raises:
        UserError: from the constructor, for the first value that is wrong, missing or misspelt.
    """
    made = pydantic.dataclasses.dataclass(frozen=True, config=CONFIG)(cls)
    validate = made.__init__

    @functools.wraps(validate)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            validate(self, *args, **kwargs)
        except pydantic.ValidationError as error:
            raise UserError(_in_words(error.errors()[0], cls)) from None

    made.__init__ = __init__
    return made


def _in_words(error: dict[str, Any], cls: type) -> str:
    """Pydantic's first error as the field's name, what was found and what was expected."""
    own = error.get("ctx", {}).get("error")
    if isinstance(own, UserError):  # raised by the class itself, in __post_init__
        return str(own)
    fields = cls.__pydantic_fields__
    where = [list(fields)[part] if isinstance(part, int) else part for part in error["loc"][:1]]  # given by position
    name, found, kind = where[0], error["input"], error["type"]
    if kind == "unexpected_keyword_argument":
        return f"{name}: unknown key; {nearest(name, fields)}"
    if kind == "missing":
        return f"{name}: is missing"
    if kind == "literal_error":
        choices = [choice for choice in _literals(fields[name].annotation) if choice is not None]
        return f"{name} {found!r}: expected one of {', '.join(map(str, choices))}"
    expected = EXPECTED.get(kind, "").format(**error.get("ctx", {})) or error["msg"]
    return f"{name} {f'{found:g}' if isinstance(found, float) else repr(found)}: expected {expected}"


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for inner in get_args(annotation) for value in _literals(inner)]
