"""Run a benchmark and report its results beside the paper's.

ldm benchmark --config configs/benchmark/cocoee.yaml
torchrun --nproc_per_node 8 --no-python ldm benchmark --config configs/benchmark/repaint.yaml --batch 16

Repeating the command goes on where it stopped. Exit code 4: there is a report, but something failed; it says what.
A config of your own may `include: benchmark/cocoee.yaml`, with `params:` that differ beside it.
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, positive


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config", required=True, help="what to measure: a config file, or a name in configs/ (benchmark/cocoee)")
    add("overrides", nargs="*", metavar="key=value", help="override config values, e.g. seed=1")
    add("--outdir", "--out", dest="out", type=Path, metavar="DIR", help="gets pictures, features and the report "
        "(default: outputs/benchmark/<name of the config>)")  # fmt: skip
    add("--limit", type=positive, metavar="N", help="the first N items of each table only: a trial, labelled as such")
    add("--batch", type=positive, default=8, help="pictures made, or looked at, at once; one run keeps to one")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from omegaconf import OmegaConf

    from ldm.benchmark.run import Benchmark, RunContext, run_benchmark
    from ldm.compat.configs import load_config
    from ldm.config import build
    from ldm.runs.outputs import check_writable
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError, report_failures
    from ldm.utils.processes import this_share

    config = load_config(args.config, overrides=args.overrides)
    benchmark = build(config) if "target" in config else None
    if not isinstance(benchmark, Benchmark):
        raise UserError(f"config {args.config}: not a benchmark config; see configs/benchmark")
    share = this_share()
    folder = args.out or Path("outputs/benchmark") / Path(args.config).stem
    check_writable(folder)
    context = RunContext(folder, args.limit, args.batch, choose_device(args.device, share.local_rank), share)
    about = {"config": args.config, "overrides": args.overrides, "settings": OmegaConf.to_container(config.params)}
    paths, problems = run_benchmark(benchmark, context, about)
    for path in paths:
        print(path)
    if share.rank == 0:  # a launcher ends all processes when one exits with another code than 0
        report_failures(problems, "of the benchmark's parts")
