"""The command `ldm fid-score`: see ldm/cli/paint_by_example/fid_score.py."""

from ldm.cli.paint_by_example.fid_score import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
