"""Helpers shared by all commands: flags, one-line errors with exit code 2, tracebacks only for bugs."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from ldm.utils.errors import UserError, report_failures
from ldm.utils.nearest import nearest
from ldm.utils.project import CONFIGS

MASK_INFERENCE = ("n_maps", "strength", "threshold", "clamp")
"""Names of the flags of `add_mask_inference_flags`."""
CLIP_KINDS = ("clip_vit_b32", "toyworld_clip")
"""Kinds of CLIP features, for `add_feature_flags`."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """A help formatter that leaves out defaults such as None, False and ''."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default in ("", [], argparse.SUPPRESS)
        stated = "(default" in (action.help or "")
        return action.help if nothing or stated else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows defaults, rejects abbreviations and reports a wrong flag in one line.

    Args:
        presets: the folder in `configs/` whose `default.yaml` holds the defaults of flags of its keys' names.

    Attributes:
        verb: the first argument of the program `ldm`. It stays in `sys.argv`, which Lightning uses to start the other
            processes of a training.
    """

    verb: ClassVar[str] = ""

    def __init__(self, description: str, presets: str | None = None):
        program = f"ldm {self.verb}" if self.verb else None
        super().__init__(program, description=description, formatter_class=HelpFormatter, allow_abbrev=False)
        self.presets = presets

    def parse_args(self, args=None, namespace=None):  # as argparse has it
        return super().parse_args(sys.argv[2:] if self.verb and args is None else args, namespace)

    def format_help(self) -> str:
        """Add the defaults that stand in `configs/` to the help of their flags."""
        if self.presets:
            from omegaconf import OmegaConf

            defaults = dict(OmegaConf.load(CONFIGS / self.presets / "default.yaml"))
            for action in self._actions:
                value = defaults.get(action.dest)
                if value is not None and action.help and action.nargs != 0 and "(default" not in action.help:
                    value = ", ".join(f"{k} {v}" for k, v in value.items()) if hasattr(value, "items") else value
                    action.help += f" (default: {value})"
        return super().format_help()

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
        if unknown:
            shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
            hint = nearest(unknown[1], [flag.lstrip("-") for action in shown for flag in action.option_strings])
            message += f"; {hint.replace('mean ', 'mean --')}" if hint.startswith("did you mean") else ""
        self.exit(2, f"error: {message}\n")

    def flag(self, name: str) -> str:
        """Return the flag of a value, as it is typed."""
        return next((action.option_strings[0] for action in self._actions if action.dest == name), f"--{name}")

    def check_jobs(
        self, args: argparse.Namespace, needed: Iterable[str | tuple[str, ...]], single: Iterable[str]
    ) -> None:
        """Check that a run has either --jobs or the flags of a single picture; flags not given are absent from `args`.

        Args:
            needed: values required without --jobs; of a tuple, one is.
            single: values not allowed with --jobs.
        """
        given = vars(args)
        if "jobs" in given:
            if wrong := [name for name in single if name in given]:
                self.error(f"argument {self.flag(wrong[0])}: not allowed with argument --jobs")
            return
        missing = [names for names in needed if not given.keys() & ({names} if isinstance(names, str) else {*names})]
        if alone := [self.flag(name) for name in missing if isinstance(name, str)]:
            self.error(f"the following arguments are required: {', '.join(alone)}")
        if missing:
            self.error(f"one of the arguments {' '.join(map(self.flag, missing[0]))} is required")


def positive(text: str) -> int:
    """Parse a flag's whole number, 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def box(text: str) -> tuple[int, int, int, int]:
    """Parse a flag's box, x0,y0,x1,y1 in pixels."""
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected x0,y0,x1,y1, four whole numbers, got {text}") from None
    return x0, y0, x1, y1


def add_model_flags(parser: Parser, config: str, aliases: Iterable[str] = ()) -> None:
    """Add --config and --ckpt (absent if not given, see `ldm.cli.weights.choose_config`), --precision and --device."""
    parser.set_defaults(default_config=config)
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--config", *aliases, default=argparse.SUPPRESS,
        help=f"a config file, or a name in configs/ (default: {config}, or what fits the file of --ckpt)")  # fmt: skip
    add("--ckpt", nargs="+", type=Path, default=argparse.SUPPRESS,
        help="the weights, one or several files (default: those that the config names)")  # fmt: skip
    add_precision_flag(group)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")


def add_job_flags(parser: Parser) -> None:
    """Add --jobs, absent if not given, and --batch."""
    about = """A run that was stopped continues when it is started again; several processes share the jobs if torchrun
    or srun starts them. Exit code 4: some jobs failed."""
    add = parser.add_argument_group("a list of jobs instead of one picture", about).add_argument
    add("--jobs", type=Path, metavar="LIST", default=argparse.SUPPRESS,
        help="a folder with image/ and so on, a .csv table, or .jsonl JSON lines, see docs/jobs.md")  # fmt: skip
    add("--batch", type=positive, default=4, help="number of jobs in a batch")


def add_example_flag(group: argparse._ActionsContainer) -> None:
    """Add --example, absent if not given; see `with_example`."""
    group.add_argument("--example", action="store_true", default=argparse.SUPPRESS,
        help="use pictures that come with ldm for the flags that are not given")  # fmt: skip


def with_example(args: argparse.Namespace, **example: object) -> argparse.Namespace:
    """Fill absent flags with the values of the example if --example is given."""
    return argparse.Namespace(**{**example, **vars(args)}) if "example" in args else args


def add_precision_flag(group: argparse._ActionsContainer) -> None:
    """Add --precision, as in `ldm.load`."""
    group.add_argument("--precision", choices=("auto", "full", "bf16"), default="auto",
        type=lambda name: "bf16" if name == "autocast" else name,
        help="full is fp32; auto is bf16 for a large model on hardware that supports it, else full; "
        "autocast is the original's name for bf16")  # fmt: skip


def add_classifier_flags(parser: Parser) -> None:
    """Add the flags of classifier guidance, which is used if --classifier or --classifier_config is given."""
    about = "A classifier of noisy pictures that guides a pixel-space model."
    add = parser.add_argument_group("classifier", about, argument_default=argparse.SUPPRESS).add_argument
    add("--classifier", type=Path, metavar="CKPT", help="its weights")
    add("--classifier_config", help="its config file, or a name in configs/ (default: imagenet256_classifier)")
    add("--classifier_scale", type=float, help="how strongly it guides")


def add_overwrite_flag(group: argparse._ActionsContainer) -> None:
    """Add --overwrite, absent if not given."""
    group.add_argument("--overwrite", action="store_true", default=argparse.SUPPRESS,
        help="replace existing results of the same name")  # fmt: skip


def add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    """Add flags for the fields of `ldm.presets.Sampling`, with the original scripts' names as aliases."""
    add_sampler_flags(group)
    group.add_argument("--n_samples", type=int, help="samples in a batch; the first has the seed")


def add_sampler_flags(group: argparse._ArgumentGroup) -> None:
    """Add the flags of `add_sampling_flags` except --n_samples."""
    add = group.add_argument
    add("--sampler", help="ddim, ddpm, dpm_solver or plms")
    for name in ("plms", "dpm_solver"):
        add(f"--{name}", dest="sampler", action="store_const", const=name, help=f"the same as --sampler {name}")
    add_step_flags(group)
    add("--eta", "--ddim_eta", type=float, help="noise added in the steps of ddim, from 0 to 1")


def add_step_flags(group: argparse._ArgumentGroup) -> None:
    """Add --steps, --scale and --seed."""
    add = group.add_argument
    add("--steps", "--ddim_steps", type=int, help="sampling steps")
    add("--guidance_scale", "--scale", type=float, help="guidance scale, 1 for no guidance")
    add("--seed", type=int, help="seed of all random numbers")


def add_compositing_flags(group: argparse._ArgumentGroup) -> None:
    """Add flags for fields of `ldm.presets.Compositing`."""
    add = group.add_argument
    add("--crop", help="none, or auto: edit a square around the mask at the model's size (small masks, large scenes)")
    add("--composite", help="feather, paste or none: how the background is kept")
    add("--feather", type=int, help="width of the blend outside the mask, in pixels")


def add_mask_inference_flags(group: argparse._ArgumentGroup) -> None:
    """Add flags for the fields of `ldm.presets.MaskInference` except the seed."""
    add = group.add_argument
    add("--n_maps", type=int, help="number of noise samples over which the map of differences is averaged")
    add("--strength", type=float, help="noise level of the map, in (0, 1]")
    add("--threshold", type=float, help="edit where the map, scaled to [0, 1], exceeds this; in (0, 1)")
    add("--clamp", type=float, help="clamp the map at this multiple of its mean")


def add_measuring_flags(parser: Parser, model: str, count: int, batch: int, out: str, by: str = "judge") -> None:
    """Add the flags of every measurement of edits on fresh ToyWorld scenes; the arguments are their defaults.

    Args:
        by: the network that measures, `judge` or `clip`; also the name of the flag for its config.
    """
    add = parser.add_argument
    add("--config", "--model", dest="model", default=model, help="a config file, or a name in configs/")
    add("--ckpt", nargs="+", type=Path, help="the weights (default: those that the config names)")
    add(f"--{by}", default=f"toyworld_{by}", help=f"the config of the {by}, which measures")
    add("--count", type=positive, default=count, help="number of edits of each kind")
    add("--seed", type=int, default=1000, help="of the scenes; by default no training set contains them")
    add("--batch", type=positive, default=batch, help="number of edits in a batch; does not change results")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    add("--outdir", "--out", dest="out", type=Path, default=Path(out), help="folder for the report and pictures")


def add_feature_flags(parser: Parser, kinds: Sequence[str] = ()) -> None:
    """Add the flags of feature extraction: --weights, --batch, --device, --cache and, if there are kinds, --extractor.

    Args:
        kinds: of `ldm.evaluation.extractors`, the first is the default.
    """
    add = parser.add_argument_group("features").add_argument
    if kinds:
        add("--extractor", choices=kinds, default=kinds[0], help="the network that extracts features")
    add("--weights", metavar="FILE", help="of the network (default: the published file in pretrained_models); random "
        "for a trial, whose numbers mean nothing")  # fmt: skip
    add("--batch", "--batch-size", type=positive, default=64, help="number of pictures in a batch")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    add("--cache", type=Path, default=Path("outputs/features"), metavar="DIR", help="keeps features between runs")


def sort_overrides(files: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate config files from `key=value`, since argparse takes overrides after `--base FILE` for files."""
    given = [*files, *overrides]
    return [word for word in given if "=" not in word], [word for word in given if "=" in word]


def note_unused(flags: Iterable[str], why: str = "accepted for compatibility with the original") -> None:
    """Report on stderr which of the given flags have no effect."""
    if flags := list(flags):
        print(f"note: {', '.join(flags)}: {why}, without effect", file=sys.stderr)


def report_jobs(folder: Path, made: int, there: int, failed: Sequence[str]) -> None:
    """Print what became of a list of jobs, and report those that failed.

    Raises:
        SomeFailed: some failed.
    """
    print(f"{folder}: {made} made, {there} there before, {len(failed)} failed")
    report_failures(failed, f"of {made + there + len(failed)} jobs")


def command(verb: str, *arguments: object) -> list[str]:
    """Return the command line of a verb of `ldm` for `subprocess`; `-P` ignores an `ldm` in the working directory."""
    return [sys.executable, "-P", "-m", "ldm", verb, *map(str, arguments)]


class LogLines(logging.Handler):
    """Handler that writes each message as a line of plain text to stderr, whatever `sys.stderr` is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def show_log() -> None:
    """Show what the library logs, from INFO upwards, on stderr; a second call changes nothing."""
    log = logging.getLogger("ldm")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, LogLines) for handler in log.handlers):
        log.addHandler(LogLines(logging.INFO))


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`: a UserError becomes one line on stderr and its exit code; other exceptions are bugs.

    SIGTERM ends it as Ctrl-C does, so that temporary files are removed.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    show_log()
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)  # always one line
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `script | head`: the reader has gone, which is not a bug
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
