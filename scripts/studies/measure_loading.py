"""The command `ldm measure-loading`: see ldm/cli/studies/measure_loading.py."""

from ldm.cli.studies.measure_loading import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
