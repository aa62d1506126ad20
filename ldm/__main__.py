"""The command `ldm`: `ldm edit`, `ldm train` and so on. `python -P -m ldm` is the same."""

import ast
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ldm import __version__
from ldm.utils.cli import Parser, run
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest

GROUPS = {
    "Edit pictures": ("ldm.cli", "edit diffedit repaint txt2img sample"),
    "Train": ("ldm.cli", "train read-bbox make-manifest preview cache-latents make-toyworld"),
    "Look after weights": ("ldm.cli", "doctor modify-checkpoints"),
    "Reproduce": ("ldm.cli", "benchmark"),
    "Paint by Example's evaluation": ("ldm.cli.paint_by_example", "make-test-bench inference-test-bench "
                  "create-square-gt-for-fid fid-score fit-gmm gmm-score-coco region-clip-score"),
    "Measure": ("ldm.cli.studies", "ablation reproduce-toyworld measure-toyworld measure-box-mask measure-diffedit "
                "measure-repaint sampler-study repaint-study bits-per-dim training-cost measure-training "
                "measure-loading measure-index make-synthetic-checkpoint measure-full-size"),
    "Report a bug": ("ldm.cli", "env"),
}  # fmt: skip
MODULES = {verb: f"{package}.{verb.replace('-', '_')}" for package, verbs in GROUPS.values() for verb in verbs.split()}


def main() -> None:
    """Run the verb that the first argument names."""
    run(_dispatch)


def _dispatch() -> None:
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help", "help"):
        print(_help())
    elif verb in ("-V", "--version"):
        print(f"ldm {__version__}")
    elif (known := verb.replace("_", "-")) in MODULES:
        Parser.verb = known
        if sys.flags.safe_path:  # nor do the processes that this one starts take an `ldm` of the working directory's
            os.environ["PYTHONSAFEPATH"] = "1"
        try:
            import_module(MODULES[known]).main()
        finally:
            Parser.verb = ""
    else:
        raise UserError(f"ldm {verb}: no such command; {nearest(verb, MODULES)} (ldm --help lists all)")


def _help() -> str:
    """Return all verbs in their groups, each with the first line of its module's docstring; nothing is imported."""
    lines = ["usage: ldm COMMAND [flags]     (ldm COMMAND --help lists its flags)"]
    for title, (_, verbs) in GROUPS.items():
        lines += ["", f"{title}:"]
        for verb in verbs.split():
            source = Path(find_spec(MODULES[verb]).origin).read_text(encoding="utf-8")
            lines.append(f"  {verb:<26}{ast.get_docstring(ast.parse(source)).splitlines()[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
