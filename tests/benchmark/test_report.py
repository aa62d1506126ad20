import json

from ldm.benchmark.report import Column, Report, Row, write_report
from ldm.evaluation.bootstrap import Estimate
from tests.refusals import refused

COLUMNS = [Column("fid", "FID (CLIP)", "lower"), Column("clip", "CLIP score", "higher", digits=1)]
ROWS = [
    Row("Paint by Example", {"fid": 3.18, "clip": 84.97}, "paper"),
    Row("ours", {"fid": Estimate(3.211, 3.104, 3.336, 3500)}, "here", "PLMS | 50"),
]


def report(**changes) -> Report:
    return Report(**{"title": "COCOEE", "columns": COLUMNS, "rows": ROWS, "about": {"seed": 321}, **changes})


def lines(folder) -> list[str]:
    return (folder / "report.md").read_text(encoding="utf-8").splitlines()


def test_the_table(tmp_path):
    write_report(report(), tmp_path / "new" / "folder")
    text = lines(tmp_path / "new" / "folder")
    assert text[0] == "# COCOEE"
    table = text[text.index("|  | FID (CLIP) ↓ | CLIP score ↑ | note |") :]
    assert table[2] == "| *Paint by Example* | *3.18* | *85.0* |  |"
    assert table[3] == r"| ours | 3.21 [3.10, 3.34] | - | PLMS \| 50 |"
    assert "95 %" in table[5] and "italics" in table[5]
    assert not any("artial" in line for line in text)


def test_a_partial_report_says_so_and_numbers_that_are_no_estimates_have_no_legend(tmp_path):
    write_report(report(rows=[Row("ours", {"fid": 1.0}, "here")], partial="20 of 3500 items"), tmp_path)
    text = "\n".join(lines(tmp_path))
    assert "**Partial: 20 of 3500 items.**" in text
    assert "italics" not in text and "bootstrap" not in text and "note" not in text


def test_json_holds_everything(tmp_path):
    write_report(report(notes=["a note"], partial="why", about={"hashes": {"gt": "ab"}}), tmp_path)
    held = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert held["rows"][1]["values"]["fid"] == {"value": 3.211, "low": 3.104, "high": 3.336, "n": 3500}
    assert held["rows"][0]["source"] == "paper"
    assert (held["notes"], held["partial"], held["about"]) == (["a note"], "why", {"hashes": {"gt": "ab"}})
    assert [column["better"] for column in held["columns"]] == ["lower", "higher"]


def test_what_it_depends_on_is_flat(tmp_path):
    about = {"weights": {"clip": {"hash": "ab"}}, "seeds": [1, 2], "rows": [{"key": "a"}, {"key": "b"}]}
    write_report(report(about=about), tmp_path)
    assert "| weights.clip.hash | `ab` |" in lines(tmp_path)
    assert "| rows.1.key | `b` |" in lines(tmp_path)
    assert "| seeds | `1, 2` |" in lines(tmp_path)


def test_plots_are_written_and_shown(tmp_path):
    paths = write_report(report(), tmp_path, {"all_rows": lambda path: path.write_bytes(b"png")})
    assert paths == [tmp_path / name for name in ("report.md", "report.json", "all_rows.png")]
    assert (tmp_path / "all_rows.png").read_bytes() == b"png"
    assert "![all rows](all_rows.png)" in lines(tmp_path)


def test_a_value_of_no_column_is_refused():
    with refused("ours", "lpips", error=ValueError):
        report(rows=[Row("ours", {"lpips": 1.0}, "here")])


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with refused(tmp_path / "file"):
        write_report(report(), tmp_path / "file")
