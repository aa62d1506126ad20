"""The command `ldm region-clip-score`: see ldm/cli/region_clip_score.py."""

from ldm.cli.region_clip_score import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
