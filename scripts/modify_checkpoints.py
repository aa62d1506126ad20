"""The command `ldm modify-checkpoints`: see ldm/cli/modify_checkpoints.py."""

from ldm.cli.modify_checkpoints import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
