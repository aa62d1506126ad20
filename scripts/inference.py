"""The command `ldm edit`: see ldm/cli/edit.py."""

from ldm.cli.edit import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
