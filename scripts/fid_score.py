"""The command `ldm fid-score`: see ldm/cli/fid_score.py."""

from ldm.cli.fid_score import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
