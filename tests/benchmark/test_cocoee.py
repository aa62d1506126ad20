"""COCOEE with a tiny model: what is made and measured, what makes it partial, and what a failure leaves."""

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.benchmark.cocoee import Cocoee
from ldm.benchmark.run import THIS_RUN
from ldm.config import build, load_config
from ldm.utils.png import read_settings
from tests.benchmark.bench import IDS, write_bench
from tests.benchmark.conftest import MISSING
from tests.benchmark.measuring import measure, ours, papers
from tests.refusals import assert_line, assert_mentions, mentions, refused
from tests.tiny import write_model


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return write_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def config(bench):
    """The shipped config, with a tiny model in few steps."""
    write_model(bench)
    files = {"data": ".", "reference": "test_set_GT", "gmm": "gmm.safetensors"}
    files |= {"model.config": "tiny.yaml", "model.checkpoint": "tiny.safetensors"}
    values = {key: str(bench / name) for key, name in files.items()}
    config = load_config("benchmark/cocoee", overrides=[f"{key}={value}" for key, value in values.items()])
    for row in config.params.rows.values():
        row.steps = 2
    return config


def test_the_whole_benchmark(config, tmp_path, capsys):
    problems, report = measure(config, tmp_path)
    assert problems == [] and report["partial"] is None
    rows = ours(report)
    assert list(rows) == ["here: original", "here: default"]
    for values in rows.values():
        assert set(values) == {column["key"] for column in report["columns"]}
        assert all(value["n"] == len(IDS) for value in values.values())
    assert rows["here: default"]["psnr_bg"]["value"] > 5 + rows["here: original"]["psnr_bg"]["value"]  # composited
    assert papers(report)["Paint by Example"] == {"fid_clip": 3.18, "qs": 77.80, "clip": 84.97}
    assert report["about"][THIS_RUN]["pictures made"] == 2 * len(IDS)
    assert report["about"]["runs"]["original"]["settings"]["sampler"] == "plms"
    assert all(len(report["about"][name]) == 32 for name in ("test bench", "real pictures", "gmm"))  # hashes
    settings = [read_settings(tmp_path / "original" / "results" / f"{id:012d}.png") for id in IDS]
    assert [each["seed"] for each in settings] == [42, 43, 44, 45, 46]
    assert Image.open(tmp_path / "figures.png").width > 100

    again, repeated = measure(config, tmp_path)  # nothing is made again, and nothing else differs
    assert again == [] and repeated["about"][THIS_RUN]["pictures made"] == 0
    for held in (report, repeated):
        del held["about"][THIS_RUN]
    assert report == repeated


def test_a_trial_of_a_few_items_is_partial(config, tmp_path):
    problems, report = measure(config, tmp_path, limit=4)
    assert problems == []
    assert mentions(report["partial"], 4) and mentions(report["partial"], 5)
    assert len(list((tmp_path / "default" / "results").iterdir())) == 4
    problems, report = measure(config, tmp_path)  # and goes on to the whole, of which a few can be looked at again
    assert problems == [] and report["partial"] is None
    problems, report = measure(config, tmp_path, limit=4)
    assert problems == [] and mentions(report["partial"], 4) and mentions(report["partial"], 5)


def test_too_few_for_a_covariance(config, tmp_path):
    problems, report = measure(config, tmp_path, limit=3)
    assert len(problems) == 4  # two distances of two rows
    for problem in problems:
        assert_line(problem, 3)
    assert all(values["fid_clip"] is None and values["clip"]["n"] == 3 for values in ours(report).values())


def test_a_metric_without_weights_is_told_and_the_others_are_measured(config, tmp_path):
    problems, report = measure(config, tmp_path, extractors={"lpips_vgg": MISSING, "inception": MISSING})
    for kind, problem in zip(("inception", "lpips_vgg"), problems, strict=True):
        assert_line(problem, kind, MISSING)
    assert_mentions(report["partial"], 2)
    for values in ours(report).values():
        assert "lpips_bg" not in values and "fid_inception" not in values and values["ssim_bg"]["n"] == len(IDS)


def test_a_missing_reference_or_mixture_costs_its_metric_alone(config, tmp_path):
    problems, report = measure(config, tmp_path, reference=str(tmp_path / "no"), gmm=str(tmp_path / "no.safetensors"))
    assert len(problems) == 6
    assert all(
        values["qs"] is values["fid_clip"] is values["fid_inception"] is None for values in ours(report).values()
    )


def test_a_broken_item_fails_alone(config, bench, tmp_path):
    broken = bench / "Mask_bbox_3500" / f"{IDS[1]:012d}_mask.png"
    whole = broken.read_bytes()
    try:
        broken.write_bytes(b"no picture")
        problems, report = measure(config, tmp_path)
    finally:
        broken.write_bytes(whole)
    (problem,) = problems
    assert_line(problem, f"{IDS[1]:012d}", broken)
    assert mentions(report["partial"], 4) and mentions(report["partial"], 5)
    assert all(values["clip"]["n"] == 4 for values in ours(report).values())
    last = read_settings(tmp_path / "default" / "results" / f"{IDS[-1]:012d}.png")
    assert last["seed"] == 46  # as if nothing were missing


def test_results_of_other_settings_are_not_mixed_in(config, tmp_path):
    measure(config, tmp_path, limit=2, extractors={})
    with refused("settings.guidance_scale", 5.0, 3.0):
        measure(config, tmp_path, rows={"original": {"guidance_scale": 3.0}})


def test_a_model_that_is_not_there(config, tmp_path):
    problems, report = measure(config, tmp_path, model={"checkpoint": "nowhere.ckpt"})
    assert len(problems) == 1 and "nowhere.ckpt" in problems[0]
    assert ours(report) == {} and "Paint by Example" in papers(report)

    _, whole = measure(config, tmp_path)  # what was made with it is measured without it, but not as something else
    rows = {"default": {"steps": 3}}
    problems, report = measure(config, tmp_path, model={"checkpoint": "nowhere.ckpt"}, rows=rows)
    assert len(problems) == 1 and report["partial"]
    assert ours(report) == {"here: original": ours(whole)["here: original"]}


def test_no_item_can_be_edited(config, bench, tmp_path):
    """All exemplars are cut short: there is nothing to measure, and no metric fails for it."""
    exemplars = [bench / "Ref_3500" / f"{id:012d}_ref.png" for id in IDS]
    held = [file.read_bytes() for file in exemplars]
    try:
        for file, content in zip(exemplars, held, strict=True):
            file.write_bytes(content[:200])
        problems, report = measure(config, tmp_path)
    finally:
        for file, content in zip(exemplars, held, strict=True):
            file.write_bytes(content)
    assert len(problems) == 2 * len(IDS)
    for problem in problems:
        assert_line(problem, ".png")
    assert report["partial"] == "0 of 5 items"


def test_a_wrong_row_is_refused_at_once(config):
    config = OmegaConf.merge(config, {"params": {"rows": {"default": {"stepz": 3}}}})
    with refused("rows.default", "stepz"):
        build(config)
    for rows, wanted in (({"default": 3}, ("rows.default", 3)), (None, ("rows", None))):
        config.params.rows = rows
        with refused(wanted):
            build(config)
    assert isinstance(build(load_config("benchmark/cocoee")), Cocoee)  # nothing is read before it runs
