"""The command `ldm repaint`: see ldm/cli/repaint.py."""

from ldm.cli.repaint import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
