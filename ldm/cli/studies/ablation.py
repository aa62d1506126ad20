"""Train the rows of an ablation one after the other, and measure them.

ldm ablation --config configs/benchmark/ablation.yaml

Repeating the command continues where it stopped.
"""

import subprocess
import sys
from pathlib import Path

from ldm.utils.cli import Parser, command, positive
from ldm.utils.errors import UserError

CACHE = "data.params.train.params.folder="  # the override with the latents that a row is trained on


def main() -> None:
    parser = Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", default="benchmark/ablation", help="a config file, or a name in configs/")
    add("--seed", type=int, default=0, help="of the trainings; each seed has its own folders")
    add("--data", type=Path, default=Path("dataset/toyworld"), help="the scenes to train on; drawn if missing")
    add("--scenes", type=positive, default=24000, help="number of scenes")
    add(
        "--outdir",
        "--out",
        dest="out",
        type=Path,
        help="folder for the report (default: outputs/benchmark/<name of the config>)",
    )
    add("overrides", nargs="*", metavar="key=value", help="override values of the trainings, e.g. trainer.max_steps=10")
    args = parser.parse_args()

    from ldm.benchmark.toyworld import ToyWorld
    from ldm.compat.configs import load_config
    from ldm.config import build

    benchmark = build(load_config(args.config))
    if not isinstance(benchmark, ToyWorld) or benchmark.training is None:
        raise UserError(f"config {args.config}: no params.training, expected a benchmark whose rows are trained")
    training, suffix = benchmark.training, f"_seed{args.seed}" if args.seed else ""
    logs = Path(training.folder + suffix)

    def do(verb: str, *arguments: object) -> None:
        if code := subprocess.run(command(verb, *arguments)).returncode:
            sys.exit(code)  # the command has reported why

    do("make-toyworld", "--out", args.data, "--train", args.scenes)
    roots = [f"{part}.params.root={args.data}" for part in ("source", "data.params.validation")]
    caches: set[str] = set()
    for row in benchmark.rows:
        folder, cache = logs / row.key, {change for change in row.train if change.startswith(CACHE)}
        first, caches = not cache <= caches, caches | cache
        if not row.train or (folder / "weights.safetensors").exists():
            continue
        print(f"\n== {row.name}", flush=True)
        changes = [*row.train, *roots, *args.overrides]
        if first:  # the first row trained on these latents determines their content
            do("cache-latents", "--base", training.config, "--epochs", 1, *changes)
        do("train", "--base", training.config, "--logdir", folder, "--resume", *changes, f"seed={args.seed}")
    out = args.out or Path("outputs/benchmark") / f"{Path(args.config).stem}{suffix}"
    do("benchmark", "--config", args.config, "--out", out, "--batch", 50, f"params.training.folder={logs}")
