"""The whole way of COCOEE with drawn pictures and a tiny model: undisturbed, and killed at two random moments.

python -m tests.benchmark.trial --count 3500 --out outputs/trial

Killed once while it makes pictures and once while it measures them, and repeated, it has to end with the same pictures,
byte for byte, and with the same report. Networks of the metrics are of the real classes, with random weights.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from omegaconf import OmegaConf

from ldm.benchmark.run import THIS_RUN
from ldm.checkpoints.io import save_tensors
from tests.tiny import CONFIG, tiny_model

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("clip_vit_b32", "lpips_vgg")
ROWS = {"original": {"edit": "original", "sampler": "plms", "steps": 4, "guidance_scale": 5.0}}


def script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]


def prepare(folder: Path, count: int, reference: int, kinds: Collection[str], device: str) -> Path:
    """A test bench, a model, a mixture of Gaussians and a config, which is returned."""
    bench, config = folder / "test_bench", folder / "trial.yaml"
    subprocess.run(script("make_test_bench", "--out", bench, "--count", count, "--reference", reference), check=True)
    OmegaConf.save({"model": CONFIG}, folder / "tiny.yaml")
    save_tensors(folder / "tiny.safetensors", tiny_model().state_dict())
    real, gmm = bench / "test_set_GT", folder / "gmm.safetensors"
    if "clip_vit_b32" in kinds:
        few = "--k", 2, "--singular", "--weights", "random", "--device", device, "--cache", folder / "features"
        subprocess.run(script("fit_gmm", real, "--out", gmm, *few), check=True)
    shipped = OmegaConf.load(ROOT / "configs" / "benchmark" / "cocoee.yaml")
    own = {"data": bench, "reference": real, "gmm": gmm, "model": folder / "tiny.yaml"}
    params = {key: str(path) for key, path in {**own, "checkpoint": folder / "tiny.safetensors"}.items()}
    params |= {"rows": ROWS, "extractors": dict.fromkeys(kinds, "random"), "resamples": 50}
    OmegaConf.save({"target": shipped.target, "params": {**shipped.params, **params}}, config)
    return config


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/results/[!.]*.png"))


class Run:
    """The benchmark as a process."""

    def __init__(self, config: Path, folder: Path, device: str):
        flags = "--config", config, "--out", folder, "--batch", 4, "--device", device
        self.folder, self.process = folder, subprocess.Popen(script("benchmark", *flags), stdout=subprocess.DEVNULL)

    def wait_for(self, count: int) -> float:
        """Returns the time when so many pictures are there, or the run has ended."""
        while len(pictures(self.folder)) < count and self.process.poll() is None:
            time.sleep(0.02)
        return time.monotonic()

    def kill(self) -> bool:
        """Returns whether it was still running."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def end(self) -> float:
        """Returns the time when it has ended well."""
        if code := self.process.wait():
            raise RuntimeError(f"the run ended with {code}")
        return time.monotonic()


def report(folder: Path) -> dict:
    """A report without what may differ: when it was made, and the commit, for others may be at work on the tree."""
    held = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del held["about"][THIS_RUN], held["about"]["commit"]
    return held


def trial(folder: Path, count: int, reference: int, kinds: Collection[str], device: str, seed: int) -> int:
    """Both ways; returns how many kills met a run (the second may come too late where the machine's load changes).

    Raises:
        AssertionError: they do not end alike.
    """
    chance, total = random.Random(seed), len(ROWS) * count
    folder.mkdir(parents=True, exist_ok=True)
    config = prepare(folder, count, reference, kinds, device)
    began = time.monotonic()
    whole = Run(config, folder / "whole", device)
    made = whole.wait_for(total)
    measuring = whole.end() - made
    print(f"undisturbed: {made - began:.0f} s until the last picture, {measuring:.0f} s to measure", flush=True)

    first = Run(config, folder / "killed", device)
    first.wait_for(at := chance.randrange(1, total))
    kills = int(first.kill())
    print(f"killed at {at} pictures, {len(pictures(folder / 'killed'))} are there", flush=True)
    second = Run(config, folder / "killed", device)
    second.wait_for(total)
    time.sleep(delay := chance.random() * measuring / 2)
    kills += (met := second.kill())
    print(f"{'killed' if met else 'ended before'} {delay:.1f} s into measuring", flush=True)
    Run(config, folder / "killed", device).end()

    assert len(pictures(folder / "whole")) == len(pictures(folder / "killed")) == total
    for a, b in zip(pictures(folder / "whole"), pictures(folder / "killed"), strict=True):
        assert a.name == b.name and a.read_bytes() == b.read_bytes(), b
    assert report(folder / "whole") == report(folder / "killed")
    print(f"the same {total} pictures and the same report after {kills} kills: {folder / 'killed' / 'report.md'}")
    return kills


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3500)
    parser.add_argument("--reference", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("outputs/trial"), help="a folder that holds no earlier trial")
    parser.add_argument(
        "--kinds", nargs="*", default=KINDS, help="of networks; CLIP looks at about 8 pictures/s a core"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=random.randrange(1000), help="of the moments")
    args = parser.parse_args()
    trial(args.out, args.count, args.reference, args.kinds, args.device, args.seed)
