import pytest
from PIL import Image

from ldm.utils.png import read_settings
from tests.benchmark.bench import IDS, SIDE, write_bench
from tests.refusals import assert_mentions, assert_refused

NAMES = [f"{id:012d}.png" for id in IDS]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return write_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def script(run_script, bench, model_files, tmp_path):
    """The command of the original's README, with a tiny model in few steps."""

    def run(*flags):
        config, ckpt = model_files
        return run_script(
            "inference_test_bench.py", "--plms", "--outdir", tmp_path / "out", "--config", config, "--ckpt", ckpt,
            "--scale", 5, "--ddim_steps", 2, "--device", "cpu", "--test_bench", bench, *flags)  # fmt: skip

    return run


def test_the_original_command(script, tmp_path):
    result = script("--H", 512, "--W", 512, "--n_samples", 2)
    assert result.returncode == 0, result.stderr
    assert_mentions(result.stderr, "note", "--H", "--W")
    results = tmp_path / "out" / "results"
    assert sorted(path.name for path in results.iterdir()) == NAMES
    assert all(Image.open(results / name).size == (SIDE, SIDE) for name in NAMES)
    held = read_settings(results / NAMES[1])
    assert held["seed"] == 43  # of the original's 42 for the first
    settings = held["settings"]
    assert (settings["sampler"], settings["guidance_scale"]) == ("plms", 5.0)
    assert (settings["composite"], settings["exemplar_fit"], settings["mask_rule"]) == ("none", "original", "luma")

    before = {name: (results / name).stat().st_mtime_ns for name in NAMES}
    (results / NAMES[3]).unlink()
    again = script("--n_samples", 2)
    assert_mentions(again.stdout, 1, 4)
    assert {name for name in NAMES if (results / name).stat().st_mtime_ns != before[name]} == {NAMES[3]}


def test_items_are_edited_alike_whichever_others_are(script, tmp_path):
    assert script("--limit", 2, "--n_samples", 2).returncode == 0
    few = (tmp_path / "out" / "results" / NAMES[1]).read_bytes()
    assert not (tmp_path / "out" / "results" / NAMES[2]).exists()
    assert script("--n_samples", 2, "--outdir", tmp_path / "all").returncode == 0
    assert (tmp_path / "all" / "results" / NAMES[1]).read_bytes() == few


def test_wrong_input_is_one_line(script, tmp_path):
    for flags, wanted in (
        (["--test_bench", tmp_path / "no"], (tmp_path / "no",)),
        (["--edit", "no"], ("edit", "no")),
        (["--ckpt", tmp_path / "no.ckpt"], "no.ckpt"),
    ):
        result = script(*flags)
        assert_refused(result, wanted)
