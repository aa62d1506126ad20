"""The command `ldm preview`: see ldm/cli/preview.py."""

from ldm.cli.preview import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
