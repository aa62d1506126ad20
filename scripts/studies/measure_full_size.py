"""The command `ldm measure-full-size`: see ldm/cli/studies/measure_full_size.py."""

from ldm.cli.studies.measure_full_size import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
