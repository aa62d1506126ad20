"""scripts/measure_full_size.py on the tiny model, as a command."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.checkpoints.io import save_tensors
from tests.tiny import CONFIG, tiny_model
from tests.utils.pictures import mask, photo

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "measure_full_size.py"
STEPS, CALLS = 3, 3
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")


@pytest.fixture
def measure(tmp_path):
    OmegaConf.save({"model": CONFIG}, tmp_path / "tiny.yaml")
    save_tensors(tmp_path / "tiny.safetensors", tiny_model().state_dict())
    photo(60, 40).save(tmp_path / "scene.png")
    mask(60, 40).save(tmp_path / "mask.png")
    flags = {
        "config": "tiny.yaml",
        "ckpt": "tiny.safetensors",
        "image_path": "scene.png",
        "mask_path": "mask.png",
        "reference_path": "scene.png",
        "steps": STEPS,
        "size": 32,
        "device": "cpu",
        "out": "out",
    }

    def run(**changes: object) -> subprocess.CompletedProcess:
        command = [text for name, value in {**flags, **changes}.items() for text in (f"--{name}", str(value))]
        return subprocess.run([sys.executable, SCRIPT, *command], cwd=tmp_path, capture_output=True, text=True)

    return run


def test_one_edit_is_measured_from_start_to_end(measure, tmp_path):
    began = time.perf_counter()
    done = measure()
    elapsed = time.perf_counter() - began
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    with Image.open(next((tmp_path / "out" / "results").iterdir())) as picture:
        assert picture.size == (32, 32)
    parameters = sum(tensor.numel() for tensor in tiny_model().state_dict().values())
    assert (report["parameters"], report["network calls"], report["precision"]) == (parameters, CALLS, "full")
    parts = report["load seconds"] + CALLS * report["seconds per network call"]
    assert 0 < parts < report["command seconds"] < elapsed
    # torch alone takes more than 20 MB of its own; the fp32 weights are held at least once
    assert report["import torch bytes"] > 20e6
    assert report["peak bytes beyond"] > 4 * parameters
    assert report["peak over bf16 weights"] == report["peak bytes beyond"] / (2 * parameters)
    assert f"{report['peak over bf16 weights']:.2f} times the bf16 weights" in done.stdout


def test_what_inference_refuses_is_refused(measure, tmp_path):
    done = measure(mask_path="nowhere.png")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "nowhere.png" in done.stderr and not (tmp_path / "out" / "report.json").exists()
