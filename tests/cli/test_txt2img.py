import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from ldm.runs.samples import GAP
from ldm.utils.png import read_settings
from tests.checkpoints import official
from tests.cli.outputs import pixels, written
from tests.refusals import assert_line, assert_refused

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "txt2img.py"


@pytest.fixture
def txt2img(tmp_path, text_model_files, run_script):
    """Run the script in this process; returns its exit code, stdout and stderr. Flags given override these."""

    def run(*flags: object, model="text", **changes: object) -> tuple[int, str, str]:
        defaults = {
            "outdir": tmp_path / "out",
            "config": text_model_files / f"{model}.yaml",
            "ckpt": text_model_files / f"{model}.safetensors",
            "ddim_steps": 2,
            "n_samples": 1,
            "H": 16,
            "W": 24,
            "seed": 3,
            "device": "cpu",
        }
        if not {"prompt", "from-file"} & set(changes):
            defaults["prompt"] = "a red ball"
        named = [text for name, value in {**defaults, **changes}.items() for text in (f"--{name}", str(value))]
        done = run_script("txt2img.py", *named, *flags)
        return done.returncode, done.stdout, done.stderr

    return run


def sample(folder: Path, number: int) -> np.ndarray:
    return pixels(folder / "samples" / f"{number:05}.png")


def test_the_originals_command_and_folders(txt2img, tmp_path):
    flags = ["--plms", "--n_rows", 3, "--C", 4, "--f", 8, "--laion400m", "--precision", "autocast"]
    code, out, err = txt2img(*flags, n_samples=2, n_iter=2, scale=7.5, ddim_eta=0.0)
    assert code == 0
    assert_line(err.removesuffix("\n"), "note", "--C", "--f", "--laion400m")
    names = {f"samples/0000{i}.png" for i in range(4)} | {"grid-0000.png"}
    assert written(tmp_path / "out") == names
    assert {str(Path(line).relative_to(tmp_path / "out")) for line in out.splitlines()[1:]} == names
    assert sample(tmp_path / "out", 0).shape == (16, 24, 3)
    grid = pixels(tmp_path / "out" / "grid-0000.png")
    assert grid.shape == (2 * (16 + GAP) + GAP, 3 * (24 + GAP) + GAP, 3)
    assert np.array_equal(grid[GAP : GAP + 16, GAP : GAP + 24], sample(tmp_path / "out", 0))
    assert np.array_equal(grid[16 + 2 * GAP : -GAP, GAP : GAP + 24], sample(tmp_path / "out", 3))


def test_numbers_go_on_from_what_is_there(txt2img, tmp_path):
    txt2img()
    first = sample(tmp_path / "out", 0)
    Image.new("RGB", (1, 1)).save(tmp_path / "out" / "samples" / "00041.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "out" / "samples" / "my 99999.png")
    txt2img(seed=4)
    names = {"00000.png", "00041.png", "my 99999.png", "00042.png"}
    assert written(tmp_path / "out") == {f"samples/{name}" for name in names} | {"grid-0000.png", "grid-0001.png"}
    assert np.array_equal(sample(tmp_path / "out", 0), first)
    assert (sample(tmp_path / "out", 42) != first).any()


def test_skipping(txt2img, tmp_path):
    assert txt2img("--skip_grid")[0] == 0
    assert written(tmp_path / "out") == {"samples/00000.png"}
    assert txt2img("--skip_save", outdir=tmp_path / "grid")[0] == 0
    assert written(tmp_path / "grid") == {"grid-0000.png"}


def test_samples_are_counted_through_the_batches_of_a_prompt(txt2img, tmp_path):
    txt2img("--skip_grid", n_samples=2, n_iter=2, seed=5)
    for k in range(4):
        txt2img("--skip_grid", seed=5 + k, outdir=tmp_path / "single")
        assert np.abs(sample(tmp_path / "out", k) - sample(tmp_path / "single", k)).max() <= 1
        assert read_settings(tmp_path / "out" / "samples" / f"0000{k}.png")["seed"] == 5 + k


def test_prompts_from_a_file(txt2img, tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeff  a red ball\n\n \t\r\na blue mug ", encoding="utf-8")
    assert txt2img(**{"from-file": tmp_path / "prompts.txt", "n_samples": 2})[0] == 0
    made = [read_settings(path) for path in sorted((tmp_path / "out" / "samples").iterdir())]
    expected = [("a red ball", 3), ("a red ball", 4), ("a blue mug", 3), ("a blue mug", 4)]
    assert [(settings["prompt"], settings["seed"]) for settings in made] == expected
    assert pixels(tmp_path / "out/grid-0000.png").shape[:2] == (2 * (16 + GAP) + GAP, 2 * (24 + GAP) + GAP)
    txt2img("--skip_grid", prompt="a blue mug", seed=4, outdir=tmp_path / "single")
    assert np.abs(sample(tmp_path / "out", 3) - sample(tmp_path / "single", 0)).max() <= 1


def test_a_fixed_code_is_the_start_of_every_batch(txt2img, tmp_path):
    txt2img("--skip_grid", "--fixed_code", n_samples=2, n_iter=2)
    txt2img("--skip_grid", n_samples=2, outdir=tmp_path / "free")
    fixed = [sample(tmp_path / "out", k) for k in range(4)]
    assert np.array_equal(fixed[0], fixed[2]) and np.array_equal(fixed[1], fixed[3])
    assert (fixed[0] != fixed[1]).any()
    assert np.array_equal(fixed[1], sample(tmp_path / "free", 1))
    txt2img("--skip_grid", "--fixed_code", n_iter=2, ddim_eta=1.0, outdir=tmp_path / "noisy")
    assert (sample(tmp_path / "noisy", 0) != sample(tmp_path / "noisy", 1)).any()  # the noise of the steps is its own


def test_the_picture_says_how_it_was_made_and_that_makes_it_again(txt2img, tmp_path, text_model_files):
    flags = {"negative_prompt": "a blue mug", "sampler": "ddim", "ddim_eta": 1.0, "scale": 3, "H": 21, "W": 19}
    txt2img(n_samples=2, **flags)
    settings = read_settings(tmp_path / "out/samples/00001.png")
    expected = {
        "prompt": "a red ball",
        "negative_prompt": "a blue mug",
        "H": 21,
        "W": 19,
        "seed": 4,
        "n_samples": 1,
        "sampler": "ddim",
        "steps": 2,
        "eta": 1.0,
        "guidance_scale": 3.0,
        "rounding": "round",
        "config": str(text_model_files / "text.yaml"),
        "ckpt": [str(text_model_files / "text.safetensors")],
        "precision": "full",
        "device": "cpu",
    }
    assert expected.items() <= settings.items()
    assert read_settings(tmp_path / "out/grid-0000.png").items() >= {"prompts": ["a red ball"], "n_samples": 2}.items()
    again = {name: settings[name] for name in ("prompt", "negative_prompt", "seed", "sampler", "eta", "H", "W")}
    txt2img(outdir=tmp_path / "again", scale=settings["guidance_scale"], **again)
    assert np.abs(sample(tmp_path / "out", 1) - sample(tmp_path / "again", 0)).max() <= 1


def test_what_is_not_given_is_as_the_settings_say(txt2img, tmp_path):
    (tmp_path / "mine.yaml").write_text("guidance_scale: 2.0\nsteps: 9\nn_samples: 5\n")
    assert txt2img("--skip_grid", settings=tmp_path / "mine.yaml")[0] == 0
    settings = read_settings(tmp_path / "out/samples/00000.png")
    assert {"guidance_scale": 2.0, "steps": 2, "seed": 3, "sampler": "ddim"}.items() <= settings.items()
    assert len(written(tmp_path / "out")) == 1


def test_a_checkpoint_in_the_official_format(txt2img, tmp_path, run_script):
    """The whole way of Stable Diffusion v1-4, in miniature."""
    config = official.model_config(official.TEXT, in_channels=4)
    OmegaConf.save(config, tmp_path / "sd.yaml")
    run_script("make_synthetic_checkpoint.py", "--config", tmp_path / "sd.yaml", "--out", tmp_path / "sd.ckpt")
    code, _, err = txt2img(
        "--skip_grid", config=tmp_path / "sd.yaml", ckpt=tmp_path / "sd.ckpt", prompt="red, green", W=33
    )
    assert (code, err) == (0, "")
    assert sample(tmp_path / "out", 0).shape == (16, 33, 3)
    assert len(np.unique(sample(tmp_path / "out", 0))) > 50


# bad input

BAD = {
    "no prompt": ({"prompt": None}, ("--prompt", "--from-file")),
    "unknown word": ({"prompt": "a green ball"}, ("a green ball", "green")),
    "unknown word to avoid": ({"negative_prompt": "tree"}, "tree"),
    "prompt too long": ({"prompt": "a " * 30}, (30, 7)),
    "no file": ({"from-file": "IN/none.txt"}, "none.txt"),
    "file a folder": ({"from-file": "IN"}, "prompts"),
    "file empty": ({"from-file": "IN/empty.txt"}, "empty.txt"),
    "file no text": ({"from-file": "IN/latin.txt"}, ("latin.txt", "UTF-8")),
    "a later line": ({"from-file": "IN/late.txt"}, ("a green mug", "green")),
    "nine channels": ({"model": "nine"}, (9, 4)),
    "output folder a file": ({"outdir": "IN/empty.txt"}, "empty.txt"),
    "weights missing": ({"ckpt": "IN/none.ckpt"}, "none.ckpt"),
    "steps": ({"ddim_steps": 0}, ("steps", 0)),
    "samples": ({"n_samples": 0}, ("n_samples", 0)),
    "batches": ({"n_iter": 0}, "--n_iter"),
    "size": ({"W": 0}, "--W"),
    "sampler": ({"sampler": "euler"}, ("sampler", "euler")),
    "eta": ({"sampler": "plms", "ddim_eta": 0.3}, ("eta", 0.3, "ddim")),
    "precision": ({"precision": "half"}, ("--precision", "half")),
    "settings": ({"settings": "theirs"}, ("txt2img", "theirs")),
}


@pytest.mark.parametrize("flags, wanted", BAD.values(), ids=BAD)
def test_bad_input_is_named_in_one_line_and_leaves_nothing(txt2img, tmp_path, flags, wanted):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "empty.txt").write_text("\n \n")
    (folder / "latin.txt").write_bytes("a caf\u00e9".encode("latin-1"))
    (folder / "late.txt").write_text("a red ball\na green mug\n")
    before = written(tmp_path)
    if flags == {"prompt": None}:
        done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
        done = done.returncode, done.stdout, done.stderr
    else:
        done = txt2img(**{name: str(value).replace("IN", str(folder)) for name, value in flags.items()})
    assert_refused(done, wanted)
    assert written(tmp_path) == before
    assert not (tmp_path / "out").exists()
