"""Train every model that ships from nothing, and measure the result.

Repeating the command goes on where it stopped.
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
    parser.add_argument("--data", type=Path, default=Path("dataset/toyworld"), help="where the scenes are drawn to")
    parser.add_argument("--logs", type=Path, default=Path("logs"), help="gets a folder for each training")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="of the steps and scenes: below 1 it is a rehearsal"
    )
    parser.add_argument("--count", type=int, default=500, help="edits to measure at the end, of each kind")
    args = parser.parse_args()
    if not 0 < args.fraction <= 1:
        raise UserError(f"--fraction {args.fraction:g}: expected more than 0 and at most 1")

    minutes = {stage: args.fraction * value for stage, value in MINUTES.items()}
    print(f"about {sum(minutes.values()):.0f} minutes on two idle CPU cores: "
          + ", ".join(f"{stage} {value:.0f}" for stage, value in minutes.items()), flush=True)  # fmt: skip

    def steps(config: str) -> int:
        from ldm.compat.configs import load_config

        return max(1, round(args.fraction * load_config(f"train/toyworld_{config}").trainer.max_steps))

    def train(stage: str, *overrides: str) -> None:
        do(stage, "train", "--base", f"configs/train/toyworld_{stage}.yaml", "--logdir", folder(stage), "--resume",
           f"trainer.max_steps={steps(stage)}", *overrides)  # fmt: skip

    def folder(stage: str) -> Path:
        return args.logs / f"toyworld_{stage}"

    def do(stage: str, verb: str, *arguments: object) -> None:
        began = time.monotonic()
        print(f"\n== {stage}: about {minutes[stage]:.0f} minutes", flush=True)
        if code := subprocess.run(command(verb, *arguments)).returncode:
            sys.exit(code)  # the command has said why
        print(f"== {stage}: {(time.monotonic() - began) / 60:.1f} minutes", flush=True)

    scenes = max(64, round(24000 * args.fraction))
    do("data", "make-toyworld", "--out", args.data, "--train", scenes)
    train("judge")
    train("clip", *(f"data.params.{part}.params.root={args.data}" for part in ("train", "validation")))
    images = {"train": "train_0", "validation": "validation"}
    train("autoencoder", *(f"data.params.{part}.params.root={args.data}/images/{f}" for part, f in images.items()))

    parts = ",".join(str((folder(stage) / "weights.safetensors").resolve()) for stage in ("autoencoder", "clip"))
    deviation = read_column(folder("autoencoder") / "csv" / "metrics.csv", "val/latent_std")[-1]
    common = f"frozen=[{parts}]", f"model.params.scale_factor={1 / deviation:.4f}"

    def train_on_cache(stage: str, *overrides: object, epochs: int) -> None:
        changes = *common, f"data.params.train.params.folder={folder(stage) / 'latents'}", *overrides
        config = f"configs/train/toyworld_{stage}.yaml"
        do(f"{stage} cache", "cache-latents", "--base", config, "--epochs", epochs, *changes)
        train(stage, *changes)

    train_on_cache("text", f"source.params.length={scenes}", epochs=4)
    roots = f"source.params.root={args.data}", f"data.params.validation.params.root={args.data}"
    train_on_cache("exemplar", *roots, epochs=3)

    train("prior")

    def measure(stage: str, name: str, count: int, *options: object) -> None:
        model = "--model", folder(stage) / "config.yaml"
        out = "--count", count, "--out", args.logs / f"measured_{name}"
        do(f"measure {name}", f"measure-{name}", *model, *out, *options)

    judge = "--judge", folder("judge") / "config.yaml"
    measure("exemplar", "toyworld", args.count, *judge)
    measure("text", "diffedit", args.count, *judge)
    measure("prior", "repaint", min(max(args.count, 2), 32), "--clip", folder("clip") / "config.yaml")
    do("measure bits per dimension", "bits-per-dim", "--config", folder("prior") / "config.yaml", "--count",
       min(args.count, 16), "--out", args.logs / "measured_bits_per_dim.json")  # fmt: skip
