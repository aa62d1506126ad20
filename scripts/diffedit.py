"""The command `ldm diffedit`: see ldm/cli/diffedit.py."""

from ldm.cli.diffedit import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
