"""The command `ldm make-toyworld`: see ldm/cli/make_toyworld.py."""

from ldm.cli.make_toyworld import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
