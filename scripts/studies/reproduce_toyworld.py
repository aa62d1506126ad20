"""The command `ldm reproduce-toyworld`: see ldm/cli/studies/reproduce_toyworld.py."""

from ldm.cli.studies.reproduce_toyworld import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
