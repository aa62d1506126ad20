"""The command `ldm make-synthetic-checkpoint`: see ldm/cli/studies/make_synthetic_checkpoint.py."""

from ldm.cli.studies.make_synthetic_checkpoint import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
