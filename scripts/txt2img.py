"""The command `ldm txt2img`: see ldm/cli/txt2img.py."""

from ldm.cli.txt2img import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
