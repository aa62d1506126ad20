"""The command `ldm fit-gmm`: see ldm/cli/paint_by_example/fit_gmm.py."""

from ldm.cli.paint_by_example.fit_gmm import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
