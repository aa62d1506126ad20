"""Measure time and memory of a few optimizer steps (Linux).

ldm measure-training --pretrained_model sd-v1-4.ckpt --clip FILE --size 256 --batch 1
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ldm.utils.cli import Parser, command
from ldm.utils.memory import PeakMemory


def main() -> None:
    parser = Parser("Measure time and peak memory of ldm train on drawn pictures, without saving checkpoints.")
    parser.add_argument("--base", default="configs/v1.yaml", help="the training config, of an exemplar model")
    parser.add_argument("--pretrained_model", required=True, help="as in ldm train")
    parser.add_argument("--clip", required=True, help="as in ldm train")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--batch", type=int, default=1, help="number of pictures per step")
    parser.add_argument("--steps", type=int, default=1, help="number of optimizer steps; the first one is slower")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config values")
    args = parser.parse_args()

    from ldm.toyworld.files import write_split
    from ldm.utils.files import read_column
    from ldm.utils.sizes import size

    with tempfile.TemporaryDirectory() as folder:
        write_split(Path(folder) / "data", "train", args.batch * args.steps, seed=0, size=args.size, workers=1)
        changes = {
            "model.params.image_size": args.size,
            "recipe.params.size": args.size,
            "data.params.train.params.root": f"{folder}/data",
            "data.params.validation": "null",
            "data.params.batch_size": args.batch,
            "data.params.num_workers": 0,
            "trainer.max_steps": args.steps,
            "trainer.devices": 1,
            "trainer.log_every_n_steps": 1,
            **dict.fromkeys(("save_every", "validate_every", "panel_every", "monitor"), "null"),
            "weights": "bfloat16",
        }
        words = ["--base", args.base, "--logdir", f"{folder}/run"]
        words += ["--pretrained_model", args.pretrained_model, "--clip", args.clip]
        words += [f"{key}={value}" for key, value in changes.items()] + args.overrides
        began = time.perf_counter()
        process = subprocess.Popen(command("train", *words))
        memory = PeakMemory(process.pid)
        if code := process.wait():
            sys.exit(code)  # the command has reported why
        seconds = time.perf_counter() - began
        rates = read_column(Path(folder, "run", "csv", "metrics.csv"), "train/samples_per_second")
    print(f"{args.base}, {args.size} px, batch {args.batch}, {args.steps} steps: {seconds:.0f} s in all, "
          f"peak anonymous memory {size(memory.peak)}, "
          f"{args.batch / rates[-1]:.1f} s for the last step")  # fmt: skip
