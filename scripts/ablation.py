"""The command `ldm ablation`: see ldm/cli/ablation.py."""

from ldm.cli.ablation import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
