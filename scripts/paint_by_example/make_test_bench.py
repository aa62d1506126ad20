"""The command `ldm make-test-bench`: see ldm/cli/paint_by_example/make_test_bench.py."""

from ldm.cli.paint_by_example.make_test_bench import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
