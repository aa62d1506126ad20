"""docs/training.md speaks of keys that there are. What holds for every page is in test_documents.py."""

import re
import shlex
from pathlib import Path

from ldm.config import load_config

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split(" # ")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(("ldm ", "srun ldm "))
]


def test_the_table_of_equations_is_read():
    rows = TEXT.split("| equation |")[1].strip().splitlines()[2:]
    assert len(rows) >= 20 and all("`ldm/" in row for row in rows)


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
