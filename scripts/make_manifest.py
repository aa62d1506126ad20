"""The command `ldm make-manifest`: see ldm/cli/make_manifest.py."""

from ldm.cli.make_manifest import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
