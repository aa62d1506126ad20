"""The English of docstrings, comments, messages and documents: the house's own idioms stay out."""

import ast
import io
import re
import subprocess
import tokenize

import pytest

from tests.test_repo import ROOT

FILES = subprocess.run(
    ["git", "ls-files", "-z", "ldm", "scripts", "configs", "docs", "*.md", "Makefile"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.split("\0")
TEXTS = [name for name in FILES if name.endswith((".py", ".yaml", ".md")) or name == "Makefile"]
CODE = [name for name in TEXTS if name.endswith(".py")]

ROOM = r'(?<!in a )(?<!")(?<!ring, )rooms?(?!")'  # ToyWorld has a place "in a room"
PRIVATE = re.compile(rf"\b(told|(is|are) none|none of|but for|so many|{ROOM}|in the place of|wish(es)?)\b")
FALSE_STARTS = re.compile(r"(Of|To|The same|That of|Those of|As|In|By|For|With|Whether|What|Where|How|Which)\b")


def prose(name):
    """Lines of a document; of code, its comments and strings."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".py"):
        return enumerate(text.splitlines(), 1)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(t.start[0], t.string) for t in tokens if t.type in (tokenize.COMMENT, tokenize.STRING)]


@pytest.mark.parametrize("name", TEXTS)
def test_the_words_are_those_of_the_field(name):
    """A native engineer would stumble over these."""
    assert [f"{name}:{n}: {found[0]}" for n, text in prose(name) for found in PRIVATE.finditer(text)] == []


def documented(name):
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                yield getattr(node, "name", name), text


@pytest.mark.parametrize("name", CODE)
def test_a_docstring_begins_with_a_sentence_or_a_noun_phrase(name):
    """Its first line says what the thing is or does."""
    wrong = []
    for owner, text in documented(name):
        first = text.split("\n")[0]
        if not first.strip() or FALSE_STARTS.match(first) or not (first[0].isupper() or first[0] in "`\"'(0123456789"):
            wrong.append(f"{owner}: {first or text.strip().splitlines()[0]}")
    assert wrong == []
