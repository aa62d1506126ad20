"""The command `ldm measure-diffedit`: see ldm/cli/studies/measure_diffedit.py."""

from ldm.cli.studies.measure_diffedit import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
