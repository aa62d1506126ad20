"""The command `ldm sample`: see ldm/cli/sample.py."""

from ldm.cli.sample import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
