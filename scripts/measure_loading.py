"""The command `ldm measure-loading`: see ldm/studies/measure_loading.py."""

from ldm.studies.measure_loading import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
