"""Scripts that edit and sample with tiny models, for their tests."""

import runpy
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ldm.checkpoints.io import save_tensors
from tests.tiny import CONFIG, TEXT_CONFIG, tiny_model, tiny_text_model, write_model
from tests.utils.pictures import mask, photo

INFERENCE = Path(__file__).resolve().parents[2] / "scripts" / "inference.py"


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(tmp_path):
    """A scene, its mask and an exemplar, in a folder of their own."""
    folder = tmp_path / "in"
    folder.mkdir()
    photo(60, 40).save(folder / "scene.png")
    mask(60, 40).save(folder / "mask.png")
    photo(30, 50, seed=7).save(folder / "exemplar.jpg")
    return folder


@pytest.fixture
def inference(tmp_path, files, model_files, monkeypatch, capfd):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""

    def run(*flags: object, scene="scene.png", hole="mask.png", **changes: object) -> tuple[int, str, str]:
        defaults = {
            "image_path": files / scene,
            "mask_path": hole and files / hole,
            "reference_path": files / "exemplar.jpg",
            "outdir": tmp_path / "out",
            "config": model_files[0],
            "ckpt": model_files[1],
            "ddim_steps": 2,
            "seed": 3,
            "device": "cpu",
        }
        values = {name: value for name, value in {**defaults, **changes}.items() if value is not None}
        named = [text for name, value in values.items() for text in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", [str(INFERENCE), *named, *map(str, flags)])
        capfd.readouterr()
        try:
            runpy.run_path(str(INFERENCE), run_name="__main__")
            code = 0
        except SystemExit as exit:
            code = exit.code
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def text_model_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for name, config, model in (("text", TEXT_CONFIG, tiny_text_model()), ("nine", CONFIG, tiny_model())):
        OmegaConf.save({"model": config}, folder / f"{name}.yaml")
        save_tensors(folder / f"{name}.safetensors", model.state_dict())
    return folder


@pytest.fixture
def diffedit(tmp_path, files, text_model_files, run_script):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""

    def run(*flags: object, **changes: object) -> tuple[int, str, str]:
        defaults = {
            "image": files / "scene.png",
            "prompt": "a blue ball",
            "source_prompt": "a red ball",
            "outdir": tmp_path / "out",
            "config": text_model_files / "text.yaml",
            "ckpt": text_model_files / "text.safetensors",
            "ddim_steps": 5,
            "n_maps": 2,
            "device": "cpu",
        }
        given = {name: value for name, value in {**defaults, **changes}.items() if value is not None}
        done = run_script(
            "diffedit.py", *[text for name, value in given.items() for text in (f"--{name}", str(value))], *flags
        )
        return done.returncode, done.stdout, done.stderr

    return run
