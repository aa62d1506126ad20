"""The command `ldm inference-test-bench`: see ldm/cli/inference_test_bench.py."""

from ldm.cli.inference_test_bench import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
