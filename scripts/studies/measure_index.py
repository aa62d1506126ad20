"""The command `ldm measure-index`: see ldm/cli/studies/measure_index.py."""

from ldm.cli.studies.measure_index import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
