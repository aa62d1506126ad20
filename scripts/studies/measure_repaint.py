"""The command `ldm measure-repaint`: see ldm/cli/studies/measure_repaint.py."""

from ldm.cli.studies.measure_repaint import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
