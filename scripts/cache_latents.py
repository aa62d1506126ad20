"""The command `ldm cache-latents`: see ldm/cli/cache_latents.py."""

from ldm.cli.cache_latents import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
