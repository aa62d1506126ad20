"""The command `ldm measure-index`: see ldm/studies/measure_index.py."""

from ldm.studies.measure_index import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
