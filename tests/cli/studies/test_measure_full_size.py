"""scripts/studies/measure_full_size.py on the tiny model, as a command."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.refusals import assert_refused
from tests.tiny import tiny_model, write_model
from tests.utils.pictures import mask, photo

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts" / "studies"
STEPS = 3
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")


@pytest.fixture
def measure(tmp_path):
    write_model(tmp_path)
    photo(32, 32).save(tmp_path / "scene.png")
    mask(32, 32).save(tmp_path / "mask.png")
    flags = {
        "config": "tiny.yaml",
        "ckpt": "tiny.safetensors",
        "image_path": "scene.png",
        "mask_path": "mask.png",
        "reference_path": "scene.png",
        "steps": STEPS,
        "scale": 5,
        "n_samples": 2,
        "device": "cpu",
        "outdir": "out",
    }

    def run(verb: str = "edit", **changes: object) -> subprocess.CompletedProcess:
        command = [text for name, value in {**flags, **changes}.items() for text in (f"--{name}", str(value))]
        return subprocess.run(
            [sys.executable, SCRIPTS / "measure_full_size.py", "--report", "report.json", verb, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def test_one_edit_is_measured_from_start_to_end(measure, tmp_path):
    began = time.perf_counter()
    done = measure()
    elapsed = time.perf_counter() - began
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())
    with Image.open(next((tmp_path / "out" / "results").iterdir())) as picture:
        assert picture.size == (32, 32)  # the script has done its work
    parameters = sum(tensor.numel() for tensor in tiny_model().state_dict().values())
    assert (report["parameters"], report["precision"]) == (parameters, "full")

    phases = report["phases"]
    calls = {name: phase["calls"] for name, phase in phases.items()}
    network = {"conditioner, 1 at once": 1, "encoder, 1 at once": 1, "UNet, 4 at once": STEPS, "decoder, 2 at once": 1}
    assert calls == {"everything else": 0, "loading": 1, **network}
    for phase in phases.values():
        assert (phase["calls"] > 0) == (0 < phase["seconds per call"] <= phase["seconds"])
    assert 0 < sum(phase["seconds"] for phase in phases.values()) < report["command seconds"] < elapsed
    # torch alone takes more than 20 MB of its own; the fp32 weights are held at least once
    assert report["import torch bytes"] > 20e6
    assert report["peak bytes beyond"] == max(phase["peak bytes beyond"] for phase in phases.values())
    assert all(phases[name]["peak bytes beyond"] > 4 * parameters for name in network)
    assert report["peak over bf16 weights"] == report["peak bytes beyond"] / (2 * parameters)
    assert f"{report['peak over bf16 weights']:.2f} times the bf16 weights" in done.stdout


def test_what_the_script_refuses_is_refused(measure, tmp_path):
    done = measure(mask_path="nowhere.png")
    assert_refused(done, "nowhere.png", stdout=True)
    assert not (tmp_path / "report.json").exists()


def test_a_command_that_is_not_there_is_refused(measure):
    done = measure("nowhere")
    assert_refused(done, "nowhere")
