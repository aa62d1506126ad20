"""DiffEdit's trade-off with a tiny model: every method at every ratio, LPIPS and CSFID by hand."""

import json
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.benchmark.diffedit import SquareEdits, squared
from ldm.checkpoints.io import save_tensors
from ldm.config import load_config
from ldm.editors.diffedit import DiffEdit
from ldm.evaluation.metrics import psnr
from ldm.presets import DiffEditSettings
from ldm.runs.jobs import Job
from ldm.utils.image import to_tensor
from tests.benchmark.measuring import measure, ours, papers
from tests.refusals import assert_line, assert_mentions, refused
from tests.tiny import TEXT_CONFIG, tiny_text_model
from tests.utils.pictures import photo

PROMPTS = ("a blue ball", "a red mug")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("diffedit")
    OmegaConf.save({"model": TEXT_CONFIG}, root / "text.yaml")
    save_tensors(root / "text.safetensors", tiny_text_model().state_dict())
    jobs = [{"image": f"{k}.png", "prompt": PROMPTS[k % 2], "source_prompt": "a red ball"} for k in range(4)]
    (root / "edits.jsonl").write_text("\n".join(map(json.dumps, jobs)), encoding="utf-8")
    for k in range(4):
        photo(80, 70, seed=k).save(root / f"{k}.png")
    for n, prompt in enumerate(PROMPTS):
        (root / "real" / prompt).mkdir(parents=True)
        for k in range(3):
            photo(30, 30, seed=10 * n + k).save(root / "real" / prompt / f"{k}.jpg")
    return root


@pytest.fixture(scope="module")
def config(folder):
    """The shipped config, with a tiny model in few steps."""
    files = {"edits": "edits.jsonl", "real": "real"}
    files |= {"model.config": "text.yaml", "model.checkpoint": "text.safetensors"}
    config = load_config("benchmark/diffedit", overrides=[f"{key}={folder / name}" for key, name in files.items()])
    config.params.settings = {"steps": 4, "n_maps": 2, "guidance_scale": 5.0}
    config.params.ratios = [0.5, 1.0]
    return config


def test_the_whole_benchmark(config, folder, tmp_path):
    problems, report = measure(config, tmp_path)
    assert problems == [] and report["partial"] is None
    rows = ours(report)
    methods = ("DiffEdit", "encode-decode", "masked, no inversion", "SDEdit")
    assert list(rows) == [f"{method}, {ratio}" for method in methods for ratio in ("0.5", "1")]
    assert all(values["lpips"]["n"] == 4 and values["csfid"]["n"] == len(PROMPTS) for values in rows.values())
    assert papers(report)["DiffEdit, 0.8"] == {"lpips": 30.5, "csfid": 23.6}
    assert Image.open(tmp_path / "curve.png").width > 100

    made = [Image.open(tmp_path / "sdedit_1" / "results" / f"{k}.png") for k in range(4)]
    assert {picture.size for picture in made} == {(64, 64)}  # squared to the model's size
    inputs = [squared(Job(str(k), folder / f"{k}.png"), 64).picture for k in range(4)]
    distances = [(to_tensor(a) - b).abs().mean().item() for a, b in zip(made, inputs, strict=True)]
    assert rows["SDEdit, 1"]["lpips"]["value"] == pytest.approx(100 * np.mean(distances), rel=1e-4)


def test_csfid_by_hand(config, folder, tmp_path):
    _, report = measure(config, tmp_path, methods=["SDEdit"], ratios=[1.0])

    def colours(files) -> np.ndarray:  # what the tests' Inception sees: the first three means of quarters
        pictures = [np.asarray(Image.open(file).convert("RGB").resize((8, 8)), float) / 127.5 - 1 for file in files]
        quarters = [p.reshape(2, 4, 2, 4, 3).mean((1, 3)).transpose(2, 0, 1).ravel()[:3] for p in pictures]
        return np.stack(quarters)

    distances = []
    for n, prompt in enumerate(PROMPTS):
        a = colours(tmp_path / "sdedit_1" / "results" / f"{k}.png" for k in (n, n + 2))
        b = colours(sorted((folder / "real" / prompt).iterdir()))
        distances.append(((a.mean(0) - b.mean(0)) ** 2).sum() + ((a.std(0, ddof=1) - b.std(0, ddof=1)) ** 2).sum())
    assert ours(report)["SDEdit, 1"]["csfid"]["value"] == pytest.approx(np.mean(distances), rel=1e-3)


def test_a_masked_edit_without_a_mask_is_the_autoencoders_picture(folder):
    """The same prompt twice: nothing differs, and nothing is edited."""
    editor = DiffEdit(tiny_text_model(), DiffEditSettings.read(steps=4, n_maps=2))
    job = Job("0", folder / "0.png", prompt="a red ball", source_prompt="a red ball")
    opened = squared(job, 64)
    (picture,) = SquareEdits(editor, "DiffEdit").make([job], [opened])
    kept = editor.decode(editor.encode(opened.picture)).clamp(-1, 1)
    assert psnr(to_tensor(picture), kept).item() > 45
    (free,) = SquareEdits(editor, "encode-decode").make([job], [opened])
    assert psnr(to_tensor(free), kept).item() < 45


def test_a_model_that_is_not_there(config, tmp_path):
    few = {"methods": ["SDEdit"], "ratios": [0.5]}
    problems, report = measure(config, tmp_path, model={"checkpoint": "nowhere.ckpt"}, **few)
    assert len(problems) == 1 and "nowhere.ckpt" in problems[0]
    assert ours(report) == {} and papers(report)
    _, whole = measure(config, tmp_path, **few)  # what was made with it is measured without it
    problems, report = measure(config, tmp_path, model={"checkpoint": "nowhere.ckpt"}, **few)
    assert len(problems) == 1 and ours(report) == ours(whole)
    assert report["about"]["real pictures"] == whole["about"]["real pictures"]


def test_partial_and_wrong_input(config, folder, tmp_path):
    problems, report = measure(config, tmp_path / "few", limit=2, methods=["SDEdit"], ratios=[0.5])
    (problem,) = problems
    assert_line(problem, "CSFID", 2, "a blue ball", 1, 3)
    assert_mentions(report["partial"], 2, 4)
    assert ours(report)["SDEdit, 0.5"]["lpips"]["n"] == 2

    problems, _ = measure(config, tmp_path / "real", methods=["SDEdit"], real=str(tmp_path / "no"))
    (problem,) = problems
    assert_line(problem, tmp_path / "no")
    shutil.copytree(folder / "real" / PROMPTS[1], tmp_path / "half" / PROMPTS[1])
    problems, report = measure(config, tmp_path / "real", methods=["SDEdit"], real=str(tmp_path / "half"))
    (problem,) = problems
    assert_line(problem, "CSFID", 1, 2, "a blue ball", 0)
    assert report["partial"] and ours(report)["SDEdit, 0.5"]["csfid"]["n"] == 1

    with refused("sdedit", "DiffEdit"):
        measure(config, tmp_path / "wrong", methods=["sdedit"])
    with refused(folder / "none.jsonl"):
        measure(config, tmp_path / "none", edits=str(folder / "none.jsonl"))
