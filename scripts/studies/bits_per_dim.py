"""The command `ldm bits-per-dim`: see ldm/cli/studies/bits_per_dim.py."""

from ldm.cli.studies.bits_per_dim import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
