"""What a wheel does outside a clone, in an environment of the base alone; `make test-wheel` makes both and runs this.

It imports nothing from the folder that it was copied from.
"""

import json
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copy

import pytest

LDM = Path(sys.executable).with_name("ldm")


@pytest.fixture
def ldm(tmp_path):
    """Run the command in a folder of the test's own."""

    def run(*arguments: object, folder: Path = tmp_path) -> subprocess.CompletedProcess:
        command = [str(word) for word in (LDM, *arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)

    return run


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_this_is_the_wheel_and_the_base():
    import ldm

    package = Path(ldm.__file__).parent
    assert "site-packages" in package.parts and (package / "shipped" / "configs").is_dir()
    assert [name for name in ("transformers", "diffusers", "cv2", "sklearn", "torch_fidelity") if find_spec(name)] == []


def test_the_example_is_edited_into_the_working_directory(ldm, tmp_path):
    import numpy as np
    from PIL import Image

    from ldm.utils.project import EXAMPLES, PACKAGE

    shipped = below(PACKAGE / "shipped")
    done = ldm("edit", "--example", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert below(tmp_path) == {
        "outputs/edit/results/scene_exemplar_42.png",
        "outputs/edit/source/scene_exemplar_42_GT.png",
        "outputs/edit/source/scene_exemplar_42_mask.png",
        "outputs/edit/source/scene_exemplar_42_inpaint.png",
        "outputs/edit/source/scene_exemplar_42_ref.png",
        "outputs/edit/grid/grid-scene_exemplar_42.png",
    }
    assert below(PACKAGE / "shipped") == shipped  # nothing is written into the package
    files = tmp_path / "outputs/edit/results/scene_exemplar_42.png", EXAMPLES / "scene.png", EXAMPLES / "mask.png"
    edited, scene, mask = (np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in files)
    inside = mask > 127
    assert edited.shape == scene.shape
    assert abs(edited - scene)[inside].mean() > 10 > abs(edited - scene)[~inside].mean()


def test_an_edit_imports_what_it_needs_alone(ldm, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ldm", "edit", "--example", "--steps", "1", "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch" in imported
    assert not imported & {"wandb", "pytorch_lightning", "lightning_fabric", "matplotlib", "tensorboard", "pyarrow"}


def test_every_module_imports():
    import ldm

    names = [module.name for module in pkgutil.walk_packages(ldm.__path__, "ldm.")]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert len(names) > 200 and done.returncode == 0, done.stderr


def test_shipped_configs_are_found_by_name_and_relative_files_in_the_working_directory(ldm, tmp_path):
    small = ["trainer.max_steps=1", "trainer.accelerator=cpu", "data.batch_size=2", "data.num_workers=0"]
    unwatched = ["validate_every=null", "panel_every=null", "monitor=null"]
    done = ldm("train", "--base", "configs/train/toyworld_judge.yaml", *small, *unwatched)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/toyworld_judge/weights.safetensors").is_file()
    done = ldm("edit", "--example", "--config", "v1", "--ckpt", "pretrained_models/model.ckpt")
    assert done.returncode == 2 and "pretrained_models/model.ckpt" in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_extra_is_one_line_that_says_what_to_install(ldm, tmp_path):
    from ldm.utils.project import EXAMPLES

    (tmp_path / "real").mkdir()
    copy(EXAMPLES / "scene.png", tmp_path / "real")
    done = ldm("fid-score", "real", "real", "--inception", "--weights", "random", "--device", "cpu")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "torch-fidelity" in done.stderr and "pip install 'ldm-edit[benchmark]'" in done.stderr


def test_env_says_what_a_bug_report_needs(ldm):
    facts = json.loads(ldm("env", "--json").stdout)
    assert facts["ldm"]["from"].startswith("a wheel") and facts["packages"]["torch"][0].isdigit()
    assert facts["packages of [benchmark]"]["torch-fidelity"] == "not installed"
