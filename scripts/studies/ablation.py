"""The command `ldm ablation`: see ldm/cli/studies/ablation.py."""

from ldm.cli.studies.ablation import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
