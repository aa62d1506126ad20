"""The command `ldm gmm-score-coco`: see ldm/cli/paint_by_example/gmm_score_coco.py."""

from ldm.cli.paint_by_example.gmm_score_coco import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
