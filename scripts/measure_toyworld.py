"""The command `ldm measure-toyworld`: see ldm/studies/measure_toyworld.py."""

from ldm.studies.measure_toyworld import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
