"""Fill holes of a picture (RePaint).

The paper: Lugmayr et al., 2201.09865. The model is one of whole pictures, or any latent model.

ldm repaint --example
ldm repaint --image scene.png --mask hole.png --outdir results
ldm repaint --image scene.png --mask_type wide --edit fast --gif --outdir results
ldm repaint --jobs list.csv --outdir results
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.utils.cli import (
    Parser,
    add_classifier_flags,
    add_compositing_flags,
    add_example_flag,
    add_job_flags,
    add_model_flags,
    add_overwrite_flag,
    add_step_flags,
    report_jobs,
    with_example,
)
from ldm.utils.project import EXAMPLES

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ldm.editors.repaint import RePaint
    from ldm.runs.jobs import Job
    from ldm.utils.processes import Share

RECORDED = """image mask_path mask_type mask_seed invert_mask config ckpt classifier classifier_config edit class_id
prompt negative_prompt reference_path""".split()
JUMPS = {
    "jump_length": "steps that a jump goes back up",
    "jump_n_sample": "how often each part of the way down is walked, 1 for no jumps",
    "n_sample": "how often each single step is taken",
    "jump2_length": "as --jump_length, of shorter jumps within",
    "jump2_n_sample": "as --jump_n_sample, of the shorter jumps",
    "jump3_length": "as --jump_length, of still shorter jumps within",
    "jump3_n_sample": "as --jump_n_sample, of the still shorter jumps",
    "start_resampling": "make no jumps before this time is reached, counted in steps from the clean end",
}


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Fill holes of a picture, by a model that goes back and forth between noise and picture.", presets="repaint"
    )
    only_if_given = {"argument_default": argparse.SUPPRESS}

    group = parser.add_argument_group("pictures and words", **only_if_given)
    add = group.add_argument
    add_example_flag(group)
    add("--image", type=Path, help="the picture, of any size, which the result keeps")
    hole = group.add_mutually_exclusive_group()
    hole.add_argument("--mask", "--mask_path", dest="mask_path", type=Path,
        help="the hole, of the picture's size: white, or painted in alpha")  # fmt: skip
    hole.add_argument("--mask_type", help="draw the hole: wide, narrow, super_resolve, alternate_lines, half, "
        "expand or brush; also by the original's names (thick, thin, nn2, ev2li, genhalf, ex64)")  # fmt: skip
    add("--mask_seed", type=int, help="seed of a random mask: wide, narrow or brush (default: 0; in a list of "
        "jobs, each job's own seed)")  # fmt: skip
    add("--invert_mask", action="store_true", help="black = repaint in masks, as in RePaint's own files")
    add("--class_id", type=int, help="what to paint, if the model or the classifier knows classes: 0 for the first")
    add("--prompt", help="what the picture should show, for a text-to-image model; without it, unconditional")
    add("--negative_prompt", default="", help="what the picture should not show")
    add("--exemplar", "--reference_path", dest="reference_path", type=Path, help="what to paint, for an exemplar model")

    add_job_flags(parser)
    add_model_flags(parser, config="toyworld_prior", aliases=("--conf_path",))
    add_classifier_flags(parser)

    output = parser.add_argument_group("output", **only_if_given)
    add_overwrite_flag(output)
    add = output.add_argument
    add("--outdir", type=Path, default=Path("outputs/repaint"), help="gets the folders results, source and grid")
    add("--gif", action="store_true", help="also write the process, as animated pictures in the folder process")
    add("--plot_schedule", action="store_true", help="also plot the times visited: schedule.png")

    about = "Flags override --edit, which, if given, overrides an original's file given as --config."
    group = parser.add_argument_group("edit", about, **only_if_given)
    add = group.add_argument
    add("--edit", help="default (the paper's), fast (configs/repaint), or a YAML file of your own (default: default, "
        "with the settings of an original's file given as --config)")  # fmt: skip
    add("--sampler", help="sampler of the steps down: ddpm, ddim or dpm_solver")
    add_step_flags(group)
    for name, meaning in JUMPS.items():
        add(f"--{name}", type=int, help=meaning)
    add("--eta", "--ddim_eta", type=float, help="noise added in the steps of ddim, from 0 to 1")
    add("--n_samples", type=int, help="pictures in a batch; the first has the seed")
    add_compositing_flags(group)
    args = parser.parse_args()
    hole = {} if "mask_path" in args else {"mask_type": "half"}
    args = with_example(args, image=EXAMPLES / "scene.png", edit="fast", **hole)
    single = ("example", "image", "mask_path", "gif", "plot_schedule", "n_samples", "overwrite")
    parser.check_jobs(args, ("image", ("mask_path", "mask_type")), single)
    return args


def main() -> None:
    args = parse_args()
    given = vars(args)

    from ldm.checkpoints.open import load, load_classifier, precision_of
    from ldm.cli.weights import choose_config, describe
    from ldm.compat.configs import load_config
    from ldm.diffusion.schedule import check_steps
    from ldm.editors.repaint import RePaint
    from ldm.presets import RePaintSettings
    from ldm.runs.jobs import read_jobs
    from ldm.runs.outputs import check_free, check_writable
    from ldm.runs.repaint_plot import plot_schedule
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.image import open_image
    from ldm.utils.processes import this_share

    choose_config(given)
    config, share, listed = load_config(args.config), this_share(), "jobs" in given
    changes = RePaintSettings.among(given)
    asked, conf = given.get("edit"), config.get("repaint", {})
    settings = RePaintSettings.read(asked or "default", {} if asked == "default" else conf, **changes)
    calls = settings.calls()

    check_hole_flags(given)
    if listed:
        needs = ("image",) if "mask_type" in given else ("image", "mask")
        jobs, wrong = read_jobs(args.jobs, needs, ("mask", "seed", "class_id", "prompt", "exemplar"))
    else:
        image = open_image(args.image)
        mask = open_hole(given, image.size, settings.mask_rule)
        exemplar = open_image(args.reference_path) if "reference_path" in given else None
        condition = {"class_id": given.get("class_id"), "prompt": given.get("prompt"), "negative": args.negative_prompt}
    check_writable(args.outdir)
    if not listed:
        names = [f"{args.image.stem}_{settings.seed + k}.png" for k in range(settings.n_samples)]
        check_free((args.outdir / "results" / name for name in names), "overwrite" in given)

    way = f"{settings.steps} steps, jump length {settings.jump_length}, resampling {settings.jump_n_sample}"
    if "plot_schedule" in given:
        args.outdir.mkdir(parents=True, exist_ok=True)
        plot_schedule(settings.times(), args.outdir / "schedule.png", f"{way}: {calls:,} network calls")
        print(args.outdir / "schedule.png")

    device = choose_device(args.device, share.local_rank)
    classifier = load_classifier(given, config, device, args.precision)

    def check(model):  # before its weights are read
        editor = RePaint(model, settings, classifier)
        if not listed:
            editor.check_condition(**condition, exemplar=exemplar)
        check_steps(settings.steps, model.schedule.num_timesteps)
        if "guidance_scale" in given and model.conditioner is None:
            raise UserError("--guidance_scale: this model has no condition to guide")

    model = load(config, given.get("ckpt"), device, args.precision, check=check, name=args.config)
    precision = precision_of(model)
    editor = RePaint(model, settings, classifier)
    if share.rank == 0:
        size = f"{len(jobs)} jobs" if listed else f"{image.width}x{image.height}"
        print(
            f"{size}, {settings.sampler}, {way}: {calls:,} network calls, precision {precision}, "
            f"{device}{describe(model)}",
            flush=True,
        )
    if listed:
        fill_jobs(args, editor, jobs, wrong, precision, share)
    else:
        fill_one(args, editor, image, mask, {**condition, "exemplar": exemplar}, precision)


def check_hole_flags(given: dict[str, Any]) -> None:
    """Check that the flags of the hole have an effect, and note which one is drawn if they do not say it."""
    from ldm.utils.errors import UserError
    from ldm.utils.holes import is_random

    if "invert_mask" in given and not given.keys() & {"mask_path", "jobs"}:
        raise UserError("--invert_mask: expected --mask with it")
    if "mask_seed" in given and "mask_type" not in given:
        raise UserError("--mask_seed: expected --mask_type with it")
    drawn = "mask_type" in given and is_random(given["mask_type"])
    if "mask_seed" in given and not drawn:
        raise UserError(f"--mask_seed: --mask_type {given['mask_type']} has nothing that is drawn")
    if drawn and "jobs" not in given:
        given.setdefault("mask_seed", 0)


def open_hole(given: Mapping[str, Any], size: tuple[int, int], rule: str) -> "Tensor":
    """Return the hole that the flags name, for a picture of `size` (width, height): (1, 1, H, W)."""
    from ldm.utils.holes import hole_mask
    from ldm.utils.mask import open_mask

    if "mask_path" in given:
        return open_mask(given["mask_path"], size, "invert_mask" in given, rule, resize=False)
    return hole_mask(given["mask_type"], size, given.get("mask_seed", 0))


def fill_one(
    args: argparse.Namespace,
    editor: "RePaint",
    image: "Image.Image",
    mask: "Tensor",
    condition: Mapping[str, Any],
    precision: str,
) -> None:
    """Fill the hole of a picture.

    Args:
        mask: (1, 1, H, W), the hole.
        condition: arguments of the editor's call.
    """
    from tqdm import tqdm

    from ldm.runs.outputs import run_record
    from ldm.runs.repaints import Film, duration, save_films, save_repaint, seconds_per_call

    def fill(callback):
        return editor(image, mask, **condition, callback=callback)

    calls, each = editor.settings.calls(), seconds_per_call(fill)
    print(f"expected time: {duration(calls * each)} ({each:.3g} s a call)", flush=True)

    film = Film(calls)
    with tqdm(total=calls, unit="call", disable=None) as bar:

        def progress(*step):
            bar.update()
            if "gif" in args:
                film(*step)

        result = fill(progress)

    name, record = args.image.stem, run_record(vars(args), RECORDED, precision, editor.model.device)
    paths = save_repaint(result, image, args.outdir, name, record)
    if "gif" in args:
        paths += save_films(film, editor, image, mask, result, args.outdir, name)
    for path in paths:
        print(path)


def fill_jobs(
    args: argparse.Namespace,
    editor: "RePaint",
    jobs: "Sequence[Job]",
    wrong: Sequence[str],
    precision: str,
    share: "Share",
) -> None:
    """Fill the holes of a list; flags fill in what the list leaves out.

    Args:
        wrong: the errors of lines that are not jobs.
    """
    from ldm.runs.job_edits import RePaintJobs
    from ldm.runs.kept_results import fingerprint
    from ldm.runs.work import editor_about, run_jobs

    given = vars(args)
    how = {"negative": args.negative_prompt, "mask_type": given.get("mask_type"), "mask_seed": given.get("mask_seed")}
    how["invert"] = "invert_mask" in given
    guide = {} if editor.classifier is None else {"classifier": fingerprint(editor.classifier)}
    about = {**editor_about(editor, precision), **guide, **how}
    exemplars = (args.reference_path,) if "reference_path" in given else ()
    defaults = {"class_id": given.get("class_id"), "prompt": given.get("prompt"), "exemplars": exemplars}
    jobs = [job.with_defaults(**defaults) for job in jobs]
    outcome = run_jobs(jobs, args.outdir, about, RePaintJobs(editor, **how), batch=args.batch, share=share)
    if share.rank == 0:
        report_jobs(args.outdir, outcome.made, outcome.there, [*wrong, *outcome.failed])
