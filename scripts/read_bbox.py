"""The command `ldm read-bbox`: see ldm/cli/read_bbox.py."""

from ldm.cli.read_bbox import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
