"""The command `ldm region-clip-score`: see ldm/cli/paint_by_example/region_clip_score.py."""

from ldm.cli.paint_by_example.region_clip_score import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
