"""A package that comes with an extra and is not installed: one line names it, before any work is done."""

import sys

import pytest

from ldm.utils.extras import EXTRAS
from tests.refusals import assert_refused
from tests.utils.pictures import photo

INSTALL = "it comes with the extra [benchmark]: pip install 'ldm-edit[benchmark]'"


@pytest.mark.parametrize(
    "missing, script, flags",
    [
        ("sklearn", "fit_gmm.py", ("real", "--out", "new/gmm.safetensors")),
        ("sklearn", "benchmark.py", ("--config", "benchmark/toyworld", "--out", "new", "--limit", 1)),
        ("sklearn", "ablation.py", ("--out", "new", "--data", "new", "--scenes", 1)),
        ("torch_fidelity", "fid_score.py", ("real", "real", "--inception", "--weights", "random", "--cache", "new")),
        ("cv2", "measure_loading.py", ("--root", "new")),
    ],
)
def test_what_is_missing_is_named_in_one_line(run_script, tmp_path, monkeypatch, missing, script, flags):
    (tmp_path / "real").mkdir()
    photo().save(tmp_path / "real" / "a.png")
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    done = run_script(script, *flags)
    package, _ = EXTRAS[missing]
    assert_refused(done, package, missing, INSTALL)
    assert not (tmp_path / "new").exists()
