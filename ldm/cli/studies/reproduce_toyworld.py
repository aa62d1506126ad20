"""Train every shipped model from scratch, and measure the result.

Repeating the command continues where it stopped.
"""

import subprocess
import sys
import time
from pathlib import Path

from ldm.utils.cli import Parser, command
from ldm.utils.errors import UserError
from ldm.utils.files import read_column

MINUTES = {  # on two idle CPU cores
    "data": 1, "judge": 3, "clip": 12, "autoencoder": 25, "text cache": 4, "text": 55, "exemplar cache": 8,
    "exemplar": 40, "prior": 60, "measure toyworld": 1, "measure diffedit": 10, "measure repaint": 10,
    "measure bits per dimension": 8,
}  # fmt: skip


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("dataset/toyworld"), help="folder for the scenes")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="gets a folder for each training")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of the steps and scenes; below 1 it is a rehearsal"
    )
    parser.add_argument("--count", type=int, default=500, help="number of edits of each kind to measure at the end")
    args = parser.parse_args()
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction {args.fraction:g}: expected more than 0 and at most 1")

    stages = Stages(args.logs, args.fraction)
    print(f"about {sum(stages.minutes.values()):.0f} minutes on two idle CPU cores: "
          + ", ".join(f"{stage} {value:.0f}" for stage, value in stages.minutes.items()), flush=True)  # fmt: skip

    scenes = max(64, round(24000 * args.fraction))
    stages.run("data", "make-toyworld", "--out", args.data, "--train", scenes)
    stages.train("judge")
    stages.train("clip", *(f"data.params.{part}.params.root={args.data}" for part in ("train", "validation")))
    images = {"train": "train_0", "validation": "validation"}
    roots = (f"data.params.{part}.params.root={args.data}/images/{folder}" for part, folder in images.items())
    stages.train("autoencoder", *roots)

    stages.train_on_cache("text", f"source.params.length={scenes}", epochs=4)
    roots = f"source.params.root={args.data}", f"data.params.validation.params.root={args.data}"
    stages.train_on_cache("exemplar", *roots, epochs=3)

    stages.train("prior")

    judge = "--judge", stages.config("judge")
    stages.measure("exemplar", "toyworld", args.count, *judge)
    stages.measure("text", "diffedit", args.count, *judge)
    stages.measure("prior", "repaint", min(max(args.count, 2), 32), "--clip", stages.config("clip"))
    stages.run("measure bits per dimension", "bits-per-dim", "--config", stages.config("prior"), "--count",
               min(args.count, 16), "--out", args.logs / "measured_bits_per_dim.json")  # fmt: skip


class Stages:
    """The stages of the reproduction; a stage that fails ends the program with its exit code.

    Args:
        logs: gets a folder for each training.
        fraction: of the steps of each training.
    """

    def __init__(self, logs: Path, fraction: float):
        self.logs, self.fraction = logs, fraction
        self.minutes = {stage: fraction * value for stage, value in MINUTES.items()}

    def folder(self, stage: str) -> Path:
        """Return the folder of a training."""
        return self.logs / f"toyworld_{stage}"

    def config(self, stage: str) -> Path:
        """Return the config of a trained model."""
        return self.folder(stage) / "config.yaml"

    def run(self, stage: str, verb: str, *arguments: object) -> None:
        """Run a command of `ldm` as a stage."""
        began = time.monotonic()
        print(f"\n== {stage}: about {self.minutes[stage]:.0f} minutes", flush=True)
        if code := subprocess.run(command(verb, *arguments)).returncode:
            sys.exit(code)  # the command has reported why
        print(f"== {stage}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)

    def train(self, stage: str, *overrides: object) -> None:
        """Train a model, or continue its training."""
        from ldm.compat.configs import load_config

        steps = max(1, round(self.fraction * load_config(f"train/toyworld_{stage}").trainer.max_steps))
        self.run(stage, "train", "--base", f"configs/train/toyworld_{stage}.yaml", "--logdir", self.folder(stage),
                 "--resume", f"trainer.max_steps={steps}", *overrides)  # fmt: skip

    def train_on_cache(self, stage: str, *overrides: object, epochs: int) -> None:
        """Cache latents of the trained autoencoder and CLIP, and train a model on them."""
        parts = ",".join(str((self.folder(part) / "weights.safetensors").resolve()) for part in ("autoencoder", "clip"))
        deviation = read_column(self.folder("autoencoder") / "csv" / "metrics.csv", "val/latent_std")[-1]
        changes = f"frozen=[{parts}]", f"model.params.scale_factor={1 / deviation:.4f}"
        changes += f"data.params.train.params.folder={self.folder(stage) / 'latents'}", *overrides
        config = f"configs/train/toyworld_{stage}.yaml"
        self.run(f"{stage} cache", "cache-latents", "--base", config, "--epochs", epochs, *changes)
        self.train(stage, *changes)

    def measure(self, stage: str, name: str, count: int, *options: object) -> None:
        """Measure a trained model by `ldm measure-<name>`."""
        model = "--model", self.config(stage)
        out = "--count", count, "--out", self.logs / f"measured_{name}"
        self.run(f"measure {name}", f"measure-{name}", *model, *out, *options)
