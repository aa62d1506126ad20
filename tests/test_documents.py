"""README, the pages of docs/ and their like speak of what there is: commands, paths, links, names, Python that runs."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from ldm.__main__ import MODULES as VERBS
from ldm.config import locate
from ldm.utils.cli import command

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md")) + [ROOT / "docs/results/index.md"]
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
FOLDERS = [ROOT / "dataset/README.md", ROOT / "pretrained_models/README.md"]

TOPS = "configs|ldm|scripts|dataset|pretrained_models|tests|docs"
FETCHED = {"ckpt", "pt", "safetensors"}
# what a person downloads or a command makes
MADE = re.compile(r"dataset/(open-images|toyworld/|test_bench|repaint/|diffedit/|coco)|pretrained_models/coco2017")
# A Python block runs, unless this stands on the line before it: it needs what only its reader has.
UNRUN = "<!-- not run -->"

by_name = {"ids": lambda path: str(path.relative_to(ROOT))}


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def blocks(document: Path, language: str) -> list[str]:
    """What the fenced blocks of a language hold."""
    found = re.findall(rf"^([^\n]*)\n```{language}\n(.*?)^```$", text_of(document), flags=re.DOTALL | re.MULTILINE)
    return [block for before, block in found if before != UNRUN]


# commands


@cache
def flags_of(verb: str) -> set[str]:
    usage = subprocess.run(command(verb, "--help"), capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--?\w[\w-]*", usage))


def shown_commands(document: Path) -> list[list[str]]:
    """In blocks a line each, possibly under a launcher; in the text between backticks."""
    lines = "".join(blocks(document, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(ldm [a-z][^`]*)`", re.sub(r"```.*?```", "", text_of(document), flags=re.DOTALL))
    commands = [re.match(r"(?:srun |torchrun .*--no-python )?ldm (?!--)(.+)", line) for line in lines]
    return [shlex.split(found[1], comments=True) for found in commands if found]


@pytest.mark.parametrize("document", [*DOCUMENTS, *FOLDERS], **by_name)
def test_commands_exist(document):
    for verb, *arguments in shown_commands(document):
        assert verb in VERBS, verb
        if arguments and arguments[0] in VERBS:  # `ldm measure-full-size edit ...` runs another
            verb = arguments[0]
        flags = {argument.partition("=")[0] for argument in arguments if re.match(r"--?[a-z]", argument)}
        assert not flags or flags <= flags_of(verb), f"ldm {verb}: {flags - flags_of(verb)}"


def test_commands_are_found():
    assert len(shown_commands(README)) > 8 and len(shown_commands(ROOT / "docs/training.md")) > 20


@pytest.mark.parametrize("document", DOCUMENTS, **by_name)
def test_targets_of_make_exist(document):
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    lines = "".join(blocks(document, "bash")).splitlines() + re.findall(r"`(make [^`]+)`", text_of(document))
    shown = {word for line in lines if line.startswith("make ") for word in shlex.split(line, comments=True)[1:]}
    assert shown <= targets


# paths, links, names


@pytest.mark.parametrize("document", DOCUMENTS, **by_name)
def test_paths_exist(document):
    shown = set(re.findall(rf"(?<![\w/.-])((?:{TOPS})/[\w./-]*\w(?:\.\w+|/))", text_of(document)))
    wanted = {path for path in shown if path.rpartition(".")[2] not in FETCHED and not MADE.match(path)}
    assert [path for path in sorted(wanted) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *FOLDERS], **by_name)
def test_links_lead_somewhere(document):
    """`make docs` looks at the anchors, too."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(document))
    here = [target for target in targets if ":" not in target]
    assert [target for target in here if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", PAGES, **by_name)
def test_functions_exist(document):
    for module, name in re.findall(r"`(ldm/[\w/]+)\.py: ([\w.]+)`", text_of(document)):
        assert callable(locate(f"{module.replace('/', '.')}.{name}"))


def test_the_names_of_the_api_exist():
    """The site finds them in the source; a module that moves is seen here first."""
    names = re.findall(r"^::: (\S+)$", text_of(ROOT / "docs/api.md"), flags=re.MULTILINE)
    assert len(names) > 30
    for name in names:
        locate(name)


# form


def test_the_readme_is_short():
    assert README.stat().st_size <= 11 * 1024


@pytest.mark.parametrize("page", [*DOCUMENTS[1:], *FOLDERS], **by_name)
def test_a_page_says_whose_it_is(page):
    title, reader = [line for line in text_of(page).splitlines() if line][:2]
    assert title.startswith("# ") and re.match(r"For [a-z ]+", reader)


def test_every_page_is_in_the_site():
    menu = text_of(ROOT / "mkdocs.yml").partition("\nnav:")[2]
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES}
    assert pages <= set(re.findall(r": (\S+\.md)$", menu, flags=re.MULTILINE))


# Python


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=f"{document.relative_to(ROOT)}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(blocks(document, "python"))
    ],
)
def test_python_runs(block, tmp_path, monkeypatch):
    """In a folder that looks like a clone, for what it opens and saves."""
    (tmp_path / "dataset").symlink_to(ROOT / "dataset")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "<document>", "exec"), {"__name__": "__main__"})
