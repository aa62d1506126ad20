"""The command `ldm repaint-study`: see ldm/cli/studies/repaint_study.py."""

from ldm.cli.studies.repaint_study import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
