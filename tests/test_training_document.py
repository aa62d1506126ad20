"""docs/training.md speaks of what there is: functions, files, keys and flags."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ldm.config import load_config, locate
from ldm.utils.cli import command

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
FUNCTIONS = re.findall(r"`(ldm/[\w/]+)\.py: ([\w.]+)`", TEXT)
# what a person downloads or writes, and what a run makes
MADE = ("logs/", "photos/", "masks/", "cutouts/", "dataset/open-images", "panel/", "csv/", "checkpoints/", "bbox/")
COMMANDS = [
    line.split(" # ")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("ldm ", "srun ldm "))
]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=lambda value: value)
def test_functions_exist(module: str, name: str):
    assert callable(locate(f"{module.replace('/', '.')}.{name}"))


def test_the_table_of_equations_is_read():
    rows = TEXT.split("| equation |")[1].strip().splitlines()[2:]
    assert len(rows) >= 20 and all("`ldm/" in row for row in rows)


def test_files_exist():
    named = re.findall(r"`((?:ldm|configs|scripts|docs|dataset)/[\w./-]+\.(?:py|yaml|md))\b", TEXT)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_commands_take_the_flags_that_are_shown():
    shown = [
        (words[0], words[1:]) for words in (shlex.split(c.removeprefix("srun ").removeprefix("ldm ")) for c in COMMANDS)
    ]
    shown += [
        (words[0], words[1:])
        for command in re.findall(r"`ldm ([^`]*--[^`]*)`", TEXT)
        if (words := shlex.split(command))
    ]
    assert len(shown) >= 8
    for verb in sorted({verb for verb, _ in shown}):
        offered = subprocess.run(command(verb, "--help"), capture_output=True, text=True, check=True).stdout
        for _, words in (item for item in shown if item[0] == verb):
            for flag in (word for word in words if word.startswith("--")):
                assert re.search(rf"{flag}\b", offered), f"{verb} {flag}"


def test_overrides_are_keys_of_the_configs():
    training = next(c for c in COMMANDS if "photos.yaml" in c and c.startswith("ldm train "))
    load_config("train/photos", overrides=[word for word in shlex.split(training) if "=" in word])
    prefixes = r"training|data|recipe|trainer|ema|wandb"
    overrides = set(re.findall(rf"`((?:{prefixes})(?:\.\w+)*=[\w.]+)`", TEXT)) - {"wandb=PROJECT"}
    assert len(overrides) >= 5
    for override in overrides:
        of_others = {"perceptual": "train/kl_f8", "timesteps": "train/ddpm_folder"}
        config = next((config for part, config in of_others.items() if part in override), "v1")
        load_config(config, overrides=[override])
    keys = re.findall(r"`((?:training|data|recipe|trainer)(?:\.\w+)+)`", TEXT)
    for key in keys:
        load_config("v1", overrides=[f"{key}=1"])
