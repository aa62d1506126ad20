"""The whole way of COCOEE with drawn pictures and a tiny model: undisturbed, and killed twice.

python -m tests.benchmark.trial --count 3500 --out outputs/trial

Killed once while it makes pictures and once while it measures them, and repeated, it has to end with the same pictures,
byte for byte, and with the same report. Networks of the metrics are of the real classes, with random weights.
"""

import argparse
import json
import random
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

from omegaconf import OmegaConf

from ldm.benchmark.run import THIS_RUN
from ldm.utils.cli import command
from tests.killed import killed_at
from tests.tiny import write_model

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("clip_vit_b32", "lpips_vgg")
ROWS = {"original": {"edit": "original", "sampler": "plms", "steps": 4, "guidance_scale": 5.0}}


def prepare(folder: Path, count: int, reference: int, kinds: Collection[str], device: str) -> Path:
    """A test bench, a model, a mixture of Gaussians and a config, which is returned."""
    bench, config = folder / "test_bench", folder / "trial.yaml"
    subprocess.run(command("make-test-bench", "--out", bench, "--count", count, "--reference", reference), check=True)
    network, weights = write_model(folder)
    real, gmm = bench / "test_set_GT", folder / "gmm.safetensors"
    if "clip_vit_b32" in kinds:
        few = "--k", 2, "--singular", "--weights", "random", "--device", device, "--cache", folder / "features"
        subprocess.run(command("fit-gmm", real, "--out", gmm, *few), check=True)
    shipped = OmegaConf.load(ROOT / "configs" / "benchmark" / "cocoee.yaml")
    params = {key: str(path) for key, path in {"data": bench, "reference": real, "gmm": gmm}.items()}
    params["model"] = {"config": str(network), "checkpoint": str(weights)}
    params |= {"rows": ROWS, "extractors": dict.fromkeys(kinds, "random"), "resamples": 50}
    OmegaConf.save({"target": shipped.target, "params": {**shipped.params, **params}}, config)
    return config


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/results/[!.]*.png"))


def report(folder: Path) -> dict:
    """A report without what may differ: when it was made, and the commit, for others may be at work on the tree."""
    held = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del held["about"][THIS_RUN], held["about"]["commit"]
    return held


def trial(folder: Path, count: int, reference: int, kinds: Collection[str], device: str, seed: int) -> None:
    """Both ways.

    Raises:
        AssertionError: they do not end alike.
    """
    total = len(ROWS) * count
    folder.mkdir(parents=True, exist_ok=True)
    config, whole, cut = prepare(folder, count, reference, kinds, device), folder / "whole", folder / "killed"

    def flags(out: Path) -> tuple[object, ...]:
        return "benchmark", "--config", config, "--out", out, "--batch", 4, "--device", device

    def killed(pattern: str, number: int) -> None:
        """Kill it when the `number`-th file of the kind is to take its place."""
        given = killed_at(signal.SIGKILL, f"{cut}/{pattern}", number, *flags(cut))
        done = subprocess.run(given, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        assert done.returncode == -signal.SIGKILL, pattern
        print(f"killed at {pattern} {number}: {len(pictures(cut))} pictures are there", flush=True)

    subprocess.run(command(*flags(whole)), check=True, stdout=subprocess.DEVNULL)
    at = random.Random(seed).randrange(2, total)
    killed("*/results/*.png", at)
    assert len(pictures(cut)) == at - 1
    killed("features/*/*.safetensors" if "clip_vit_b32" in kinds else "report.md", 1)
    assert len(pictures(cut)) == total and not (cut / "report.json").exists()
    subprocess.run(command(*flags(cut)), check=True, stdout=subprocess.DEVNULL)

    assert len(pictures(whole)) == len(pictures(cut)) == total
    for a, b in zip(pictures(whole), pictures(cut), strict=True):
        assert a.name == b.name and a.read_bytes() == b.read_bytes(), b
    assert report(whole) == report(cut)
    print(f"the same {total} pictures and the same report: {cut / 'report.md'}")


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
