"""The helper that looks at refusals can fail."""

import pytest

from ldm.utils.errors import SomeFailed, UserError
from tests.refusals import assert_refused, mentions, refused


@pytest.mark.parametrize(
    "mention, there",
    [
        (4, True),
        ("steps", True),
        ("a.png", True),
        (0.4, False),
        (40, False),
        ("step", False),
        ("png", True),
        (-4, False),
    ],
)
def test_a_mention_is_a_whole_word(mention, there):
    assert mentions("in/a.png: steps 4 of 400, expected more than 40.5", mention) == there


def refuse(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [UserError("steps 5"), UserError("steps\n4"), SomeFailed("steps 4")])
def test_another_value_two_lines_and_another_kind_of_error_are_noticed(error):
    with pytest.raises(AssertionError), refused("steps", 4):
        refuse(error)
    with refused("steps", 4):
        refuse(UserError("steps 4"))


@pytest.mark.parametrize(
    "done",
    [(1, "", "error: no a.png\n"), (2, "some", "error: no a.png\n"), (2, "", "no a.png\n"), (2, "", "error: b.png\n"),
     (2, "", "note: none\nerror: no a.png\n"), (2, "", "error: no a.png\nand more\n")],
)  # fmt: skip
def test_commands_that_are_not_refused_as_they_should_be(done):
    with pytest.raises(AssertionError):
        assert_refused(done, "a.png")
    assert_refused((2, "", "error: no a.png\n"), "a.png")
