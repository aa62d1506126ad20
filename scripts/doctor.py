"""The command `ldm doctor`: see ldm/cli/doctor.py."""

from ldm.cli.doctor import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
