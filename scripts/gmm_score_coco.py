"""The command `ldm gmm-score-coco`: see ldm/cli/gmm_score_coco.py."""

from ldm.cli.gmm_score_coco import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
