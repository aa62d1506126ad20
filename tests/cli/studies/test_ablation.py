"""`ldm ablation` up to the commands that it runs: each row is trained once, and rows share latents."""

import subprocess
import sys

import pytest

from ldm.cli.studies import ablation
from tests.refusals import refused

FOLDER = "data.params.train.params.folder=dataset/toyworld/ablation/"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Verbs that are run, and their arguments; a training leaves its weights."""
    monkeypatch.chdir(tmp_path)

    def commands(*flags: str, fails: str = "") -> list[tuple[str, list[str]]]:
        ran = []

        def run(command):
            name, words = command[4], command[5:]
            ran.append((name, words))
            if name == "train" and fails not in words[3:4]:
                folder = tmp_path / words[3]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "weights.safetensors").touch()
            return subprocess.CompletedProcess(command, 2 if fails and fails in words[3:4] else 0)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "argv", ["ldm ablation", *flags])
        ablation.main()
        return ran

    return commands


def test_every_row_is_trained_once_and_then_measured(commands):
    ran = commands("--data", "scenes")
    assert [name for name, _ in ran] == [
        "make-toyworld", "cache-latents", "train", "train", "cache-latents", "train", "train", "cache-latents", "train",
        "benchmark",
    ]  # fmt: skip
    trained = [words for name, words in ran if name == "train"]
    rows = ["baseline", "prior", "augmentation", "bottleneck", "shapes"]
    assert [words[3] for words in trained] == [f"logs/ablation/{row}" for row in rows]
    cached = [[word for word in words if word.startswith(FOLDER)] for name, words in ran if name == "cache-latents"]
    assert cached == [[FOLDER + name] for name in ("plain", "augmented", "shapes")]
    for name, words in ran[1:-1]:
        assert {"source.params.root=scenes", "data.params.validation.params.root=scenes"} <= set(words), name
    assert all("--resume" in words and "seed=0" in words for words in trained)
    again = commands("--data", "scenes")
    assert [name for name, _ in again] == ["make-toyworld", "benchmark"]


def test_rows_add_up(commands):
    trained = {words[3].rpartition("/")[2]: set(words) for name, words in commands() if name == "train"}
    all_tokens, no_augmentation = "model.params.conditioner.params.tokens=all", "recipe.params.augment=false"
    boxes, prior = (
        "recipe.params.arbitrary_mask_percent=0",
        "pretrained_model=pretrained_models/toyworld/text.safetensors",
    )
    switches = {all_tokens, no_augmentation, boxes, prior}
    expected = {
        "baseline": {all_tokens, no_augmentation, boxes},
        "prior": {all_tokens, no_augmentation, boxes, prior},
        "augmentation": {all_tokens, boxes, prior},
        "bottleneck": {boxes, prior},
        "shapes": {prior},
    }
    assert {row: words & switches for row, words in trained.items()} == expected


def test_another_seed_has_folders_of_its_own_but_the_same_latents(commands):
    ran = commands("--seed", "1", "trainer.max_steps=3")
    trained = [words for name, words in ran if name == "train"]
    assert trained[0][3] == "logs/ablation_seed1/baseline" and "seed=1" in trained[0]
    assert all("trainer.max_steps=3" in words for words in trained)
    assert not any("seed=1" in words for name, words in ran if name == "cache-latents")
    assert ran[-1][1][-1] == "params.training.folder=logs/ablation_seed1"
    assert "outputs/benchmark/ablation_seed1" in ran[-1][1]


def test_a_training_that_fails_ends_it(commands):
    with pytest.raises(SystemExit) as ended:
        commands(fails="logs/ablation/prior")
    assert ended.value.code == 2


def test_a_benchmark_without_trainings_is_refused(commands):
    with refused("benchmark/toyworld", "params.training"):
        commands("--config", "benchmark/toyworld")
