from pathlib import Path

import pytest

from ldm.utils import project
from ldm.utils.project import find_file


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The project's folder and the working directory, both made up."""
    folders = tmp_path / "project", tmp_path / "work"
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(project, "ROOT", folders[0])
    monkeypatch.chdir(folders[1])
    return folders


def test_what_ships_comes_before_a_file_of_the_same_name_in_the_working_directory(places):
    root, here = places
    (here / "model.ckpt").touch()
    assert find_file("model.ckpt") == here / "model.ckpt"
    (root / "model.ckpt").touch()
    assert find_file("model.ckpt") == root / "model.ckpt"
    assert find_file(here / "model.ckpt") == here / "model.ckpt"


@pytest.mark.parametrize("installed", [False, True])
def test_a_file_that_is_nowhere_gets_the_path_where_a_person_would_put_it(places, monkeypatch, installed):
    monkeypatch.setattr(project, "INSTALLED", installed)
    assert find_file("pretrained_models/model.ckpt") == places[installed] / "pretrained_models" / "model.ckpt"


def test_the_commit_is_the_projects_own(places):
    """In a folder without a repository git would answer for one around it."""
    assert project.commit() == f"unknown: {places[0]} is not a clone"
