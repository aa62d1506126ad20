"""Train a network from a config file.

ldm train --base configs/v1.yaml --pretrained_model sd-v1-4.ckpt --clip FILE --logdir DIR
"""

import argparse
from pathlib import Path

from ldm.compat.latent_diffusion import devices
from ldm.utils.cli import Parser, note_unused, sort_overrides
from ldm.utils.errors import UserError

TRAINER = ("num_nodes", "max_steps", "precision", "accelerator", "strategy")
UNUSED = {"train": ["-t"], "no-test": [], "project": ["-p"], "debug": ["-d"]}


def parse_args() -> argparse.Namespace:
    """Parse the command line, with the original's flags translated to `base`, `overrides`, `logdir` and `resume`."""
    parser = Parser("Train what a config file describes. Ends with weights.safetensors in the run folder.")
    add = parser.add_argument
    add("-b", "--base", nargs="+", default=[], metavar="FILE",
        help="config files, later ones overriding earlier ones; the original's are translated")  # fmt: skip
    add("-l", "--logdir", type=Path, metavar="DIR", help="the run folder (default: logs/<name of the config>)")
    add("-r", "--resume", nargs="?", const="", metavar="PATH",
        help="go on from the last checkpoint in the run folder, if any; with PATH, the run's folder or a file in it, "
        "--base and --logdir can be left out")  # fmt: skip
    add("--pretrained_model", type=Path, metavar="FILE", help="start from these weights, e.g. sd-v1-4.ckpt")
    add("--clip", type=Path, metavar="FILE", help="CLIP's image tower, which SD v1-4 does not hold")
    add("overrides", nargs="*", metavar="key=value", help="override config values, e.g. trainer.max_steps=100")

    add = parser.add_argument_group("the original's flags").add_argument
    add("-n", "--name", help="the run folder is NAME, in --logdir or in logs")
    add("-f", "--postfix", default="", help="the end of the run folder's name")
    add("-s", "--seed", metavar="N", help="seed=N")
    add("--gpus", type=devices, metavar="LIST", help="trainer.devices: which ones (0,1 or 0,), or how many (2)")
    for name in TRAINER:
        add(f"--{name}", metavar="X", help=f"trainer.{name}=X")
    switch = {"nargs": "?", "const": "true", "help": argparse.SUPPRESS}
    add("--scale_lr", type=str.lower, choices=("true", "false"), **switch)
    for name, short in UNUSED.items():
        add(*short, f"--{name}", dest=name, **switch)

    options = parser.parse_args()
    given = {name: value for name, value in vars(options).items() if value is not None}
    if given.get("scale_lr") == "true":
        rate = "training.params.optimisation.params.learning_rate"
        raise UserError(f"--scale_lr true: the learning rate is never scaled; set {rate} to the one you want")
    note_unused(f"--{name}" for name in UNUSED if name in given)

    words = [*options.base, *options.overrides]
    if "=" in given.get("resume", ""):  # --resume key=value: argparse takes it for PATH
        words, given["resume"] = [options.resume, *words], ""
    options.base, options.overrides = sort_overrides(words, [])
    aliases = {"seed": "seed", "trainer.devices": "gpus", **{f"trainer.{name}": name for name in TRAINER}}
    options.overrides[:0] = [f"{key}={given[name]}" for key, name in aliases.items() if name in given]

    options.resume = "resume" in given
    if given.get("resume"):
        if options.logdir or options.name:
            raise UserError(f"--resume {given['resume']}: says the run folder; leave --logdir and --name out")
        options.logdir = run_folder(Path(given["resume"]))
        options.base = options.base or [str(options.logdir / "config.yaml")]
    elif not options.base:
        parser.error("--base: missing, expected the config file of the training")
    else:
        if options.name or not options.logdir:
            options.logdir = (options.logdir or Path("logs")) / (options.name or Path(options.base[-1]).stem)
        options.logdir = options.logdir.with_name(options.logdir.name + options.postfix)
    return options


def run_folder(path: Path) -> Path:
    """Return the folder of a run, given itself or anything inside it."""
    for folder in (path, *path.resolve().parents[:3]):  # at the deepest in checkpoints/last
        if path.exists() and (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"--resume {path}: neither the folder of a run, with its config.yaml, nor inside of one")


def main() -> None:
    options = parse_args()

    from ldm.compat.configs import load_config
    from ldm.training.loop.fit import fit

    config = load_config(*options.base, overrides=options.overrides)
    for key in ("pretrained_model", "clip"):
        if getattr(options, key):
            file = getattr(options, key)  # one of the working directory comes before one of the project
            config[key] = str(file.absolute() if file.is_file() else file)
    fit(config, options.logdir, options.resume)
