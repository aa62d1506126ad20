"""The command `ldm measure-box-mask`: see ldm/cli/studies/measure_box_mask.py."""

from ldm.cli.studies.measure_box_mask import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
