import json
import os
import subprocess

import pytest

from ldm.utils.files import read_column, remove_left, write_json
from tests.refusals import refused


def test_a_column_of_a_table(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,val/psnr\n1,\n2,20.5\n3,\n4,21\n")
    assert read_column(file, "val/psnr") == [20.5, 21.0]
    with refused(file, "val/loss"):
        read_column(file, "val/loss")
    with refused(tmp_path / "other.csv"):
        read_column(tmp_path / "other.csv", "step")


def test_json_is_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "report.json"
    write_json(file, {"é": [1, 2.5]})
    assert json.loads(file.read_text(encoding="utf-8")) == {"é": [1, 2.5]}
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert json.loads(file.read_text(encoding="utf-8")) == {"é": [1, 2.5]}
    with refused(tmp_path / "none/report.json"):
        write_json(tmp_path / "none" / "report.json", {})


def test_json_without_what_it_has_not(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1.5, float("inf")], "b": {"c": (float("nan"), True, None)}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == {"a": [1.5, None], "b": {"c": [None, True, None]}}


def test_what_another_process_is_writing_stays(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as other:
        files = {pid: tmp_path / f".a.png.{pid}.tmp" for pid in (other.pid, os.getpid())}
        for file in files.values():
            file.touch()
            remove_left(file)
        assert [file.exists() for file in files.values()] == [True, False]
        other.kill()
    remove_left(files[other.pid])
    assert not files[other.pid].exists()
