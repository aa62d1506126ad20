"""The command `ldm measure-repaint`: see ldm/studies/measure_repaint.py."""

from ldm.studies.measure_repaint import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
