"""scripts/doctor.py: what it prints and its exit codes."""

import pytest
import torch
from omegaconf import OmegaConf

from tests.checkpoints import official
from tests.doctor.conftest import TOYWORLD
from tests.refusals import assert_refused


@pytest.fixture
def config(tmp_path):
    OmegaConf.save(official.model_config(), tmp_path / "tiny.yaml")
    return tmp_path / "tiny.yaml"


def labels(done):
    return {line[:12].strip(): line[12:21].strip() for line in done.stdout.splitlines() if line[:1].strip()}


def test_a_good_model_is_fine(run_script, fp32_only):
    done = run_script("doctor.py", *TOYWORLD, "--config", "toyworld", "--device", "cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("verdict: fine")
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_a_random_model_in_the_official_format_is_complete_and_broken(tmp_path, run_script, config):
    """With training objects of vanished classes, which are not made."""
    path = official.write(tmp_path / "model.ckpt", official.averages(official.paint_by_example()))
    done = run_script("doctor.py", path, "--config", config)
    assert done.returncode == 1, done.stderr
    found = labels(done)
    assert (found["file"], found["model"], found["weights"], found["averages"]) == ("ok", "ok", "ok", "ok")
    assert found["autoencoder"] == "PROBLEM"
    assert "torch zip" in done.stdout and "verdict: broken: autoencoder's round trip" in done.stdout


def test_a_text_model_is_tried_too(tmp_path, run_script, fp32_only):
    OmegaConf.save(official.text_config(), tmp_path / "text.yaml")
    path = official.write(tmp_path / "model.safetensors", official.stable_diffusion())
    done = run_script("doctor.py", path, "--config", tmp_path / "text.yaml")
    found = labels(done)
    assert (done.returncode, found["model"], found["input"], found["denoising"]) == (1, "ok", "ok", "PROBLEM")
    assert "4 channels" in done.stdout


def test_what_is_missing_is_named_and_the_rest_is_tried(tmp_path, run_script, config, fp32_only):
    tensors = official.paint_by_example()
    del tensors["learnable_vector"], tensors["proj_out.bias"]
    done = run_script("doctor.py", official.write(tmp_path / "model.ckpt", tensors), "--config", config)
    found = labels(done)
    assert (done.returncode, found["model"], found["networks"]) == (1, "PROBLEM", "skipped")
    text = " ".join(done.stdout.split())
    assert "2 missing: " in text and "washed out" in text
    assert found["autoencoder"] == "PROBLEM"  # it is complete, and random


def test_what_cannot_be_read_is_one_line(tmp_path, run_script):
    whole = official.write(tmp_path / "whole.safetensors", {"a": torch.zeros(100)}).read_bytes()
    contents = {"page.ckpt": b"\n<html>log in</html>", "cut.safetensors": whole[:-9], "empty.ckpt": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        done = run_script("doctor.py", tmp_path / name)
        assert_refused(done, tmp_path / name)


def test_the_same_tensor_in_two_files_is_refused(tmp_path, run_script):
    files = [official.write(tmp_path / name, {"a": torch.zeros(1)}) for name in ("a.safetensors", "b.safetensors")]
    done = run_script("doctor.py", *files)
    assert_refused(done, files[1])


def test_the_state_of_a_training_names_the_weights_beside_it(tmp_path, run_script):
    torch.save({"global_step": 3}, tmp_path / "trainer.ckpt")
    official.write(tmp_path / "weights.safetensors", {"a": torch.zeros(1)})
    done = run_script("doctor.py", tmp_path / "trainer.ckpt")
    assert_refused(done, tmp_path / "trainer.ckpt", tmp_path / "weights.safetensors")
