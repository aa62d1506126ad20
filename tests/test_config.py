import pytest

from ldm.config import find_config, load_config
from ldm.utils.errors import UserError


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_keys_beside_an_include_are_merged_over_it(file, tmp_path):
    part = file("part.yaml", "a: 1\nb: 2\n")
    config = load_config(file("whole.yaml", f"x: {{include: {part}, b: 3}}\ny: {{include: {part}}}\n"))
    assert config == {"x": {"a": 1, "b": 3}, "y": {"a": 1, "b": 2}}


def test_a_config_that_includes_itself_is_named(file, tmp_path):
    file("b.yaml", f"deep: {{include: {tmp_path / 'a.yaml'}}}")
    with pytest.raises(UserError, match="a.yaml: includes itself"):
        load_config(file("a.yaml", f"x: {{include: {tmp_path / 'b.yaml'}}}"))


def test_a_name_too_long_for_a_file_is_no_config():
    with pytest.raises(UserError, match="config xxx.*: no such file, nor a name in"):
        find_config("x" * 300)


@pytest.mark.parametrize("value", ["[", "{a: ]", "${", '"'])
def test_an_override_that_is_no_yaml_is_named_in_one_line(file, value):
    with pytest.raises(UserError, match=r"^override 'trainer\.max_steps=.*': [^\n]+$"):
        load_config(file("a.yaml", "trainer: {max_steps: 3}"), overrides=[f"trainer.max_steps={value}"])
