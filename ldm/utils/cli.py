"""What every command shares: one-line errors with exit code 2, tracebacks only for bugs."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from ldm.utils.errors import UserError

MASK_INFERENCE = ("n_maps", "strength", "threshold", "clamp")
"""The flags of `add_mask_inference_flags`."""
CLIP_KINDS = ("clip_vit_b32", "toyworld_clip")
"""Kinds of features for `add_feature_flags`."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default in ("", [], argparse.SUPPRESS)
        told = "(default" in (action.help or "")
        return action.help if nothing or told else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows defaults, accepts no abbreviations and answers a wrong flag in one line.

    Attributes:
        verb: the first argument of the program, if that is `ldm`. `sys.argv` stays whole: Lightning starts the other
            processes of a training by it.
    """

    verb: ClassVar[str] = ""

    def __init__(self, description: str):
        program = f"ldm {self.verb}" if self.verb else None
        super().__init__(program, description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        return super().parse_args(sys.argv[2:] if self.verb and args is None else args, namespace)

    def error(self, message: str):
        self.exit(2, f"error: {message}\n")

    def check_jobs(self, args: argparse.Namespace, needed: Iterable[str], single: Iterable[str]) -> None:
        """See that a run has either --jobs, or what a single picture needs; flags are absent where they are not given.

        Args:
            needed: flags without which, if there is no --jobs, argparse would refuse the rest; "a|b": one of them.
            single: flags that make no sense with --jobs.
        """
        given = vars(args)
        if "jobs" in given:
            if wrong := [name for name in single if name in given]:
                self.error(f"argument --{wrong[0]}: not allowed with argument --jobs")
            return
        missing = [names for names in needed if not given.keys() & set(names.split("|"))]
        if alone := [names for names in missing if "|" not in names]:
            self.error(f"the following arguments are required: {', '.join(f'--{name}' for name in alone)}")
        if missing:
            self.error(f"one of the arguments {' '.join(f'--{name}' for name in missing[0].split('|'))} is required")


def positive(text: str) -> int:
    """A flag's whole number, 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def box(text: str) -> tuple[int, int, int, int]:
    """A flag's box, x0,y0,x1,y1 in pixels."""
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x0,y0,x1,y1, four whole numbers, got {text}") from None
    return x0, y0, x1, y1


def add_model_flags(parser: Parser, config: str, aliases: Iterable[str] = ()) -> None:
    """--config, --ckpt (absent if not given), --precision as `ldm.load` knows it, --device."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--config", *aliases, default=config, help="a config file, or a name in configs/")
    add("--ckpt", nargs="+", type=Path, default=argparse.SUPPRESS,
        help="the weights (one file or several), if not those that the config names")  # fmt: skip
    add_precision_flag(group)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def add_job_flags(parser: Parser) -> None:
    """--jobs, absent if not given, and --batch."""
    told = """A run that was stopped goes on when it is started again; several processes share the work if torchrun or
    srun starts them. Exit code 4: some jobs failed."""
    add = parser.add_argument_group("a list of jobs instead of one picture", told).add_argument
    add("--jobs", type=Path, metavar="LIST", default=argparse.SUPPRESS,
        help="a folder with image/ and so on, a table .csv, or JSON lines .jsonl, as the README says")  # fmt: skip
    add("--batch", type=positive, default=4, help="jobs of the list made at once")


def add_example_flag(group: argparse._ActionsContainer) -> None:
    """--example, absent if not given; see `with_example`."""
    group.add_argument("--example", action="store_true", default=argparse.SUPPRESS,
        help="do it with pictures that come with ldm, where no others are given")  # fmt: skip


def with_example(args: argparse.Namespace, **example: object) -> argparse.Namespace:
    """Give each flag that is absent the value that it has in the example, if --example is there."""
    return argparse.Namespace(**{**example, **vars(args)}) if "example" in args else args


def add_precision_flag(group: argparse._ActionsContainer) -> None:
    """--precision as `ldm.load` knows it."""
    group.add_argument("--precision", choices=("auto", "full", "bf16"), default="auto",
        type=lambda name: "bf16" if name == "autocast" else name,
        help="full is fp32; auto is bf16 for a large model on hardware that computes it, else full; "
        "autocast is the original's name for bf16")  # fmt: skip


def add_classifier_flags(parser: Parser) -> None:
    """What guides a model of pictures towards a class; a classifier is used if --classifier or its config is given."""
    told = "A classifier of noisy pictures, to guide a model of pictures."
    add = parser.add_argument_group("classifier", told, argument_default=argparse.SUPPRESS).add_argument
    add("--classifier", type=Path, metavar="CKPT", help="its weights")
    add("--classifier_config", help="its config file, or a name in configs/ (default: imagenet256_classifier)")
    add("--classifier_scale", type=float, help="how strongly it guides")


def add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    """The fields of `ldm.presets.Sampling` by the original scripts' names, and by better ones."""
    add_sampler_flags(group)
    group.add_argument("--n_samples", type=int, help="samples in a batch; the first has the seed")


def add_sampler_flags(group: argparse._ArgumentGroup) -> None:
    """How each sample is made: all of `add_sampling_flags` but their number."""
    add = group.add_argument
    add("--sampler", help="ddim, ddpm, dpm_solver or plms")
    for name in ("plms", "dpm_solver"):
        add(f"--{name}", dest="sampler", action="store_const", const=name, help=f"the same as --sampler {name}")
    add_step_flags(group)
    add("--eta", "--ddim_eta", type=float, help="noise added in the steps of ddim, from 0 to 1")


def add_step_flags(group: argparse._ArgumentGroup) -> None:
    """What every way of sampling has: --steps, --scale and --seed."""
    add = group.add_argument
    add("--steps", "--ddim_steps", type=int, help="sampling steps")
    add("--scale", dest="guidance_scale", type=float, help="guidance scale, 1 for no guidance")
    add("--seed", type=int, help="seed of all random numbers")


def add_compositing_flags(group: argparse._ArgumentGroup) -> None:
    """Fields of `ldm.presets.Compositing`."""
    add = group.add_argument
    add("--crop", help="none, or auto: edit a square around the mask at the model's size (small masks, large scenes)")
    add("--composite", help="feather, paste or none: how the background is kept")
    add("--feather", type=int, help="width of the blend outside the mask, in pixels")


def add_mask_inference_flags(group: argparse._ArgumentGroup) -> None:
    """Fields of `ldm.presets.MaskInference`, but the seed."""
    add = group.add_argument
    add("--n_maps", type=int, help="noises over which the map of differences is averaged")
    add("--strength", type=float, help="noise level of the map, in (0, 1]")
    add("--threshold", type=float, help="of the map, scaled to [0, 1]: what is above it is edited; in (0, 1)")
    add("--clamp", type=float, help="the map is cut at so many times its mean")


def add_measuring_flags(parser: Parser, model: str, count: int, batch: int, out: str, by: str = "judge") -> None:
    """What every measurement of edits on fresh ToyWorld scenes takes; the arguments are defaults.

    `by` is the network that measures, `judge` or `clip`, and the flag of its config.
    """
    add = parser.add_argument
    add("--model", default=model, help="a config file, or a name in configs/")
    add("--ckpt", nargs="+", type=Path, help="the weights, if not those that the config names")
    add(f"--{by}", default=f"toyworld_{by}", help=f"the config of the {by}, which measures")
    add("--count", type=positive, default=count, help="number of edits, of each kind")
    add("--seed", type=int, default=1000, help="of the scenes: no training set holds any of them")
    add("--batch", type=positive, default=batch, help="edits made at once; does not change them")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--out", type=Path, default=Path(out), help="folder of report and pictures")


def add_feature_flags(parser: Parser, kinds: Sequence[str] = ()) -> None:
    """What looking at pictures by a network takes: --extractor, if there are kinds to choose from (the first is the
    default), and --weights, both as `ldm.evaluation.extractors` knows them, and how.
    """
    add = parser.add_argument_group("features").add_argument
    if kinds:
        add("--extractor", choices=kinds, default=kinds[0], help="whose features")
    add("--weights", metavar="FILE", help="of the network, if not the published file in pretrained_models; random for "
        "a trial, whose numbers mean nothing")  # fmt: skip
    add("--batch", "--batch-size", type=positive, default=64, help="pictures looked at at once")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--cache", type=Path, default=Path("outputs/features"), metavar="DIR", help="keeps features between runs")


def sort_overrides(files: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files and `key=value` apart: behind `--base FILE` argparse takes overrides for further files."""
    given = [*files, *overrides]
    return [word for word in given if "=" not in word], [word for word in given if "=" in word]


def note_unused(flags: Iterable[str], why: str = "accepted for the original's sake") -> None:
    """Say on stderr which of the given flags do nothing."""
    if flags := list(flags):
        print(f"note: {', '.join(flags)}: {why}, without effect", file=sys.stderr)


def command(verb: str, *arguments: object) -> list[str]:
    """The command line of a verb of `ldm` for `subprocess`. `-P`: never an `ldm` of the working directory's."""
    return [sys.executable, "-P", "-m", "ldm", verb, *map(str, arguments)]


class StderrHandler(logging.StreamHandler):
    """A handler that writes to whatever `sys.stderr` is when a record is emitted."""

    def __init__(self):
        logging.Handler.__init__(self, logging.INFO)

    @property
    def stream(self):
        return sys.stderr


def show_logs() -> None:
    """Show what `ldm` logs, from INFO up, as plain lines on stderr."""
    logger = logging.getLogger("ldm")
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())
    logger.setLevel(logging.INFO)


def run(main: Callable[[], None]) -> None:
    """Run a script's main: UserError -> one line on stderr, its exit code; any other exception is a bug and is shown.

    SIGTERM ends it as Ctrl-C does, so that temporary files are removed on the way out.
    """
    show_logs()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)  # one line, whatever is in it
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `script | head`: the reader has left, which is no bug
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
