"""The command `ldm measure-training`: see ldm/cli/studies/measure_training.py."""

from ldm.cli.studies.measure_training import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
