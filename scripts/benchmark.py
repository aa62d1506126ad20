"""The command `ldm benchmark`: see ldm/cli/benchmark.py."""

from ldm.cli.benchmark import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
