"""Edit a picture by example (Paint by Example).

The flags of Paint by Example's script work too, and the output folders are its own.

ldm edit --example
ldm edit --image scene.png --mask mask.png --exemplar exemplar.jpg --outdir results
ldm edit --image scene.png --box 16,20,40,52 --exemplar exemplar.jpg --outdir results
ldm edit --jobs list.csv --outdir results
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldm.utils.cli import (
    MASK_INFERENCE,
    Parser,
    add_compositing_flags,
    add_example_flag,
    add_job_flags,
    add_mask_inference_flags,
    add_model_flags,
    add_overwrite_flag,
    add_sampling_flags,
    box,
    note_unused,
    positive,
    report_jobs,
    with_example,
)
from ldm.utils.project import EXAMPLES

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ldm.editors.exemplar import ExemplarEditor
    from ldm.presets import EditSettings, MaskInference
    from ldm.runs.jobs import Job
    from ldm.utils.processes import Share

IGNORED = ("n_imgs", "n_rows", "C", "f")
RECORDED = (
    "image_path mask_path box reference_path reference_weights config ckpt edit invert_mask fixed_code H W".split()
)
SINGLE = "example image_path mask_path box H W n_iter n_samples skip_save skip_grid fixed_code overwrite".split()


def parse_args() -> argparse.Namespace:
    parser = Parser("Paint what an exemplar picture shows into a region of a picture.", presets="edit")
    only_if_given = {"argument_default": argparse.SUPPRESS}

    group = parser.add_argument_group("pictures", **only_if_given)
    add = group.add_argument
    add_example_flag(group)
    add("--image", "--image_path", dest="image_path", type=Path, help="the scene, of any size, which the result keeps")
    region = group.add_mutually_exclusive_group()
    region.add_argument("--mask", "--mask_path", dest="mask_path", type=Path,
        help="what to repaint: white, or painted in alpha")  # fmt: skip
    region.add_argument("--box", type=box, metavar="x0,y0,x1,y1",
        help="a box around what to repaint, in pixels, x1 and y1 exclusive; the mask is found in it")  # fmt: skip
    add("--exemplar", "--reference_path", dest="reference_path", nargs="+", type=Path,
        help="what to paint there; several are mixed")  # fmt: skip
    add("--exemplar_weights", "--reference_weights", dest="reference_weights", nargs="+", type=float, metavar="WEIGHT",
        help="how much each of several exemplars counts (default: all the same)")  # fmt: skip
    add("--invert_mask", action="store_true", help="black = repaint in masks")
    add("--H", type=positive, help="resize the scene to this height first")
    add("--W", type=positive, help="resize the scene to this width first")

    add_job_flags(parser)
    add_model_flags(parser, config="toyworld")

    output = parser.add_argument_group("output", **only_if_given)
    add = output.add_argument
    add("--outdir", type=Path, default=Path("outputs/edit"), help="gets the folders results, source and grid")
    add_overwrite_flag(output)
    add("--skip_save", action="store_true", help="write neither results nor sources")
    add("--skip_grid", action="store_true", help="write no grid")
    add("--n_iter", type=positive, help="number of batches (default: 1); over all of them, sample k has seed + k")

    group = parser.add_argument_group("edit", "Settings not given here are taken from --edit.", **only_if_given)
    add = group.add_argument
    add("--edit", default="default", help="default, original (as in the original's script) or a YAML file of your own")
    add_sampling_flags(group)
    add("--fixed_code", action="store_true", help="start all samples from the same noise, that of --seed")
    add_compositing_flags(group)
    add("--exemplar_fit", help="stretch, crop or original: how the exemplar is fitted to the encoder's square")
    for name in IGNORED:
        add(f"--{name}", type=int, help=argparse.SUPPRESS)

    about = "How --box finds a mask. Settings not given here are those of configs/diffedit/box.yaml and default.yaml."
    add_mask_inference_flags(parser.add_argument_group("mask", about, **only_if_given))
    args = parser.parse_args()
    hole = {} if "box" in args else {"mask_path": EXAMPLES / "mask.png"}
    exemplars = [EXAMPLES / "exemplar.png"]
    args = with_example(args, image_path=EXAMPLES / "scene.png", reference_path=exemplars, **hole)
    parser.check_jobs(args, ("image_path", "reference_path", ("mask_path", "box")), SINGLE)
    return args


def main() -> None:
    args = parse_args()
    given = vars(args)

    from ldm.checkpoints.open import load, precision_of
    from ldm.cli.weights import choose_config, describe
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.presets import DiffEditSettings, EditSettings
    from ldm.runs.jobs import read_jobs
    from ldm.runs.outputs import check_free, check_writable
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.image import open_image
    from ldm.utils.processes import this_share

    choose_config(given)
    note_unused(f"--{name}" for name in IGNORED if name in given)
    settings = EditSettings.read(args.edit, **EditSettings.among(given))
    share, listed, of_the_mask = this_share(), "jobs" in given, {k: given[k] for k in MASK_INFERENCE if k in given}
    inference = DiffEditSettings.read("box", **of_the_mask) if "box" in given else None
    if inference and "invert_mask" in given:
        raise UserError("--invert_mask: expected --mask with it")
    if "reference_weights" in given and "reference_path" not in given:
        raise UserError("--exemplar_weights: expected --exemplar with it")
    if not inference:
        note_unused((f"--{name}" for name in of_the_mask), "the mask is given")
    if listed:
        needs = ("image", "mask", "exemplar")[: 2 if "reference_path" in given else 3]
        jobs, wrong = read_jobs(args.jobs, needs, ("exemplar", "weights", "seed"))
    else:
        image, mask = open_scene(args, settings)
        exemplars = [open_image(path) for path in args.reference_path]
    check_writable(args.outdir)
    if not listed:
        name, n = result_name(args), settings.n_samples
        seeds = range(settings.seed, settings.seed + given.get("n_iter", 1) * n)
        results = [args.outdir / "results" / f"{name}_{seed}.png" for seed in seeds]
        grids = [args.outdir / "grid" / f"grid-{name}_{seed}.png" for seed in seeds[::n]]
        written = [*results * ("skip_save" not in given), *grids * ("skip_grid" not in given)]
        check_free(written, "overwrite" in given)

    device = choose_device(args.device, share.local_rank)
    model = load(args.config, given.get("ckpt"), device, args.precision, check=ExemplarEditor.check)
    precision = precision_of(model)
    editor = ExemplarEditor(model, settings)
    if share.rank == 0:
        size = f"{len(jobs)} jobs" if listed else f"{image.width}x{image.height}"
        print(f"{size}, {settings.sampler}, {settings.steps} steps, guidance {settings.guidance_scale:g}, "
              f"precision {precision}, {device}{describe(model)}", flush=True)  # fmt: skip
    if listed:
        edit_jobs(args, editor, jobs, wrong, precision, share)
    else:
        edit_one(args, editor, image, mask, exemplars, inference, precision)


def result_name(args: argparse.Namespace) -> str:
    """Return the beginning of the results' names, which says which scene and exemplars they are of."""
    first, *others = args.reference_path
    return f"{args.image_path.stem}_{first.stem}" + (f"+{len(others)}" if others else "")


def open_scene(args: argparse.Namespace, settings: "EditSettings") -> "tuple[Image.Image, Tensor]":
    """Open the scene and its mask, or the box around that, (1, 1, H, W), both at the size asked for."""
    import torch.nn.functional as F
    from PIL import Image

    from ldm.utils.image import open_image
    from ldm.utils.mask import box_mask, open_mask

    image, given = open_image(args.image_path), vars(args)
    if "box" in given:
        mask = box_mask(args.box, image.size)
    else:
        mask = open_mask(args.mask_path, image.size, "invert_mask" in given, settings.mask_rule)
    size = given.get("W", image.width), given.get("H", image.height)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
        mask = F.adaptive_max_pool2d(mask, size[::-1])  # whatever is touched is selected: nothing of it can vanish
    return image, mask


def edit_one(
    args: argparse.Namespace,
    editor: "ExemplarEditor",
    image: "Image.Image",
    mask: "Tensor",
    exemplars: "Sequence[Image.Image]",
    inference: "MaskInference | None",
    precision: str,
) -> None:
    """Edit a picture.

    Args:
        mask: (1, 1, H, W), what to repaint, or the box in which that is found.
        inference: how.
    """
    from tqdm import tqdm

    from ldm.editors.mask_inference import EmptyMask
    from ldm.runs.edits import save_edit, save_map
    from ldm.runs.outputs import run_record
    from ldm.utils.mask import mask_box

    given, settings, found = vars(args), editor.settings, None
    weights, name = given.get("reference_weights"), result_name(args)
    record = run_record(given, RECORDED, precision, editor.model.device)
    if len(exemplars) == 1:
        record |= {"reference_path": args.reference_path[0]}
    if inference:
        record |= {flag: getattr(inference, flag) for flag in MASK_INFERENCE}
        with tqdm(total=2 * inference.n_maps, desc="mask", unit="evaluation", disable=None) as bar:
            try:
                found = editor.infer_mask(image, mask_box(mask), exemplars, inference, weights, callback=bar.update)
            except EmptyMask as error:
                bar.close()
                print(save_map(error.maps[0], args.outdir, name, settings.seed, record))
                raise
        print(f"mask: {found.mask.sum() / mask.sum():.0%} of the box")
        mask = found.mask
    start_seed = settings.seed if "fixed_code" in given else None
    for batch in range(given.get("n_iter", 1)):
        seed = settings.seed + batch * settings.n_samples
        with tqdm(total=settings.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
            options = {"seed": seed, "start_seed": start_seed, "callback": lambda *_: bar.update()}  # noqa: B023
            result = editor(image, mask, exemplars, weights, **options)
        save, grid = "skip_save" not in given, "skip_grid" not in given
        found_map = None if found is None else found.map[0, 0]
        for path in save_edit(result, image, args.outdir, name, record, save, grid, found_map):
            print(path)


def edit_jobs(
    args: argparse.Namespace,
    editor: "ExemplarEditor",
    jobs: "Sequence[Job]",
    wrong: Sequence[str],
    precision: str,
    share: "Share",
) -> None:
    """Edit the pictures of a list; flags fill in what the list leaves out.

    Args:
        wrong: the errors of lines that are not jobs.
    """
    from ldm.runs.job_edits import ExemplarJobs
    from ldm.runs.work import editor_about, run_jobs

    given, how = vars(args), {"invert": "invert_mask" in args}
    about = {**editor_about(editor, precision), **how}
    weights = tuple(given.get("reference_weights", ())) or None
    defaults = {"exemplars": tuple(given.get("reference_path", ())), "weights": weights}
    jobs = [job if job.exemplars else job.with_defaults(**defaults) for job in jobs]
    outcome = run_jobs(jobs, args.outdir, about, ExemplarJobs(editor, **how), batch=args.batch, share=share)
    if share.rank == 0:
        report_jobs(args.outdir, outcome.made, outcome.there, [*wrong, *outcome.failed])
