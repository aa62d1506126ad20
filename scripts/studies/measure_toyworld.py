"""The command `ldm measure-toyworld`: see ldm/cli/studies/measure_toyworld.py."""

from ldm.cli.studies.measure_toyworld import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
