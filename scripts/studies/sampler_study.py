"""The command `ldm sampler-study`: see ldm/cli/studies/sampler_study.py."""

from ldm.cli.studies.sampler_study import main
from ldm.utils.cli import run

if __name__ == "__main__":
    run(main)
