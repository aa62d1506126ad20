"""The command `ldm create-square-gt-for-fid`: see ldm/cli/paint_by_example/create_square_gt_for_fid.py."""

from ldm.cli.paint_by_example.create_square_gt_for_fid import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
