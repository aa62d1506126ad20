"""What an import and an edit do without: that is what makes them start fast, on any machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import HANGS

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "dataset" / "toyworld_examples"

UNUSED = {
    "cv2", "diffusers", "lightning", "matplotlib", "open_clip", "pyarrow", "pytorch_lightning", "sklearn",
    "tensorboard", "timm", "torch_fidelity", "torchmetrics", "torchvision", "transformers", "wandb",
}  # fmt: skip

EDITS = {
    "inference": (
        "--image_path", PICTURES / "scene.png", "--mask_path", PICTURES / "mask.png",
        "--reference_path", PICTURES / "exemplar.png",
    ),
    "diffedit": ("--image", PICTURES / "ball.png", "--source_prompt", "a red ball", "--prompt", "a blue ball"),
    "repaint": ("--image", PICTURES / "scene.png", "--mask_type", "half", "--jump_n_sample", 1),
    "txt2img": ("--prompt", "a red ball"),
}  # fmt: skip

TOLD = """
import atexit, sys
before = set(sys.modules)
atexit.register(lambda: print(*sys.modules.keys() - before))
"""


def imported(code: str, *arguments: object, after: str = "") -> set[str]:
    """Modules that a fresh process imports for the code, besides those that it has imported `after`."""
    command = [sys.executable, "-c", f"{after}{TOLD}{code}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_ldm_alone_imports_the_standard_library():
    found = imported("import ldm")
    assert "ldm" in found
    assert {name.partition(".")[0] for name in found} <= {"ldm", *sys.stdlib_module_names}


@pytest.mark.parametrize("script", EDITS)
def test_an_edit_imports_nothing_that_it_does_not_use(script, tmp_path):
    code = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    found = imported(code, f"scripts/{script}.py", *EDITS[script], "--outdir", tmp_path, "--steps", 4)
    assert {"ldm", "PIL"} <= found
    assert found & UNUSED == set()


@pytest.mark.parametrize("config", ["toyworld", "toyworld_text"])
def test_an_empty_model_needs_no_compiler(config):
    """torch imports its own to draw random numbers for tensors without memory."""
    build = (
        "from ldm.checkpoints.load import build_empty; from ldm.config import load_config; "
        f"build_empty(load_config({config!r}).model)"
    )
    found = imported(build, after="import torch")
    assert "ldm.models.unet" in found
    assert found & {"torch._dynamo", "torch._inductor"} == set()
