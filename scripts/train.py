"""The command `ldm train`: see ldm/cli/train.py."""

from ldm.cli.train import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
