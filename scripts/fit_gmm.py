"""The command `ldm fit-gmm`: see ldm/cli/fit_gmm.py."""

from ldm.cli.fit_gmm import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
