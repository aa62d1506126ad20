import numpy as np
from PIL import Image

from ldm.benchmark.layout import read_test_bench
from tests.refusals import assert_refused


def test_a_whole_test_bench(run_script, tmp_path):
    out = tmp_path / "bench"
    arguments = "make_test_bench.py", "--out", out, "--count", 3, "--reference", 2, "--size", 32
    assert run_script(*arguments).returncode == 0
    items, wrong = read_test_bench(out)
    assert len(items) == 3 and wrong == []
    for item in items:
        assert Image.open(item.image).size == Image.open(item.mask).size == (32, 32)
        assert set(np.unique(Image.open(item.mask).convert("L"))) == {0, 255}  # white = the hole, and not everything
    assert [path.name for path in sorted((out / "test_set_GT").iterdir())] == ["000000000000.png", "000000000001.png"]

    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert run_script(*arguments).returncode == 0
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before  # a function of its flags
    assert run_script(*arguments, "--seed", 1).returncode == 0
    assert items[0].image.read_bytes() != before[items[0].image]

    assert run_script(*arguments, "--count", 2).returncode == 0
    assert len(read_test_bench(out)[0]) == 2
    result = run_script(*arguments, "--reference", 1)  # the others would stay, and be measured
    assert_refused(result, 2, 1)


def test_an_output_that_cannot_be(run_script, tmp_path):
    (tmp_path / "file").write_text("")
    result = run_script("make_test_bench.py", "--out", tmp_path / "file" / "bench", "--count", 1)
    assert_refused(result, tmp_path / "file" / "bench")
