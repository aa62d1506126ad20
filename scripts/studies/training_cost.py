"""The command `ldm training-cost`: see ldm/cli/studies/training_cost.py."""

from ldm.cli.studies.training_cost import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
