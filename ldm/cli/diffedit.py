"""Change what a prompt names in a picture; the mask is found (DiffEdit).

The paper: Couairon et al., 2210.11427.

ldm diffedit --example
ldm diffedit --image scene.png --source_prompt "a red ball" --prompt "a blue ball" --outdir results
ldm diffedit --jobs list.csv --outdir results
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
    add_step_flags,
    note_unused,
    report_jobs,
    with_example,
)
from ldm.utils.project import EXAMPLES

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ldm.editors.diffedit import DiffEdit
    from ldm.runs.jobs import Job
    from ldm.utils.processes import Share

RECORDED = "image source_prompt negative_prompt mask_path invert_mask config ckpt edit".split()


def parse_args() -> argparse.Namespace:
    parser = Parser(
        "Change what a prompt names in a picture. Where to change it is found by the model, or given.",
        presets="diffedit",
    )
    only_if_given = {"argument_default": argparse.SUPPRESS}

    group = parser.add_argument_group("pictures and prompts", **only_if_given)
    add = group.add_argument
    add_example_flag(group)
    add("--image", type=Path, help="the scene, of any size, which the result keeps")
    add("--prompt", nargs="+", action="extend",
        help="what the picture should show; each of several prompts makes a picture of its own")  # fmt: skip
    add("--source_prompt", default="", help="what it shows now; without it, the mask is found against the empty prompt")
    add("--negative_prompt", default="", help="what the edit is not to show")
    add("--mask", "--mask_path", dest="mask_path", type=Path,
        help="where to edit: white, or painted in alpha; without it, the model finds the mask")  # fmt: skip
    add("--invert_mask", action="store_true", help="black = edit in masks")

    add_job_flags(parser)
    add_model_flags(parser, config="toyworld_text")

    add = parser.add_argument_group("output", **only_if_given).add_argument
    add("--outdir", type=Path, default=Path("outputs/diffedit"),
        help="gets the folders results, source and grid")  # fmt: skip
    add("--show_map", action="store_true",
        help="also write the map, and the mask over the scene, as files of their own: folders map and "
        "overlay")  # fmt: skip
    add("--round_trip", action="store_true",
        help="measure the inversion: PSNR of what comes back from it against the autoencoder's reconstruction; costs "
        "another steps x encode_ratio evaluations of the network")  # fmt: skip

    group = parser.add_argument_group("edit", "Settings not given here are taken from --edit.", **only_if_given)
    add = group.add_argument
    add("--edit", default="default", help="default, or a YAML file of your own")
    add("--encode_ratio", type=float, help="how far towards noise the picture is taken, in (0, 1]: more changes more")
    add_mask_inference_flags(group)
    add("--refine", type=int, help="iterations in each step of the inversion, for a closer round trip")
    add_step_flags(group)
    add_compositing_flags(group)
    args = with_example(parser.parse_args(), image=EXAMPLES / "ball.png", prompt=["a blue ball"])
    parser.check_jobs(args, ("image", "prompt"), ("example", "image", "mask_path", "show_map", "round_trip"))
    return args


def main() -> None:
    args = parse_args()
    given = vars(args)

    from ldm.checkpoints.open import load, precision_of
    from ldm.cli.weights import choose_config, describe
    from ldm.editors.diffedit import DiffEdit
    from ldm.presets import DiffEditSettings, encoded_steps
    from ldm.runs.jobs import read_jobs
    from ldm.runs.outputs import check_writable
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.image import open_image
    from ldm.utils.mask import open_mask
    from ldm.utils.processes import this_share

    choose_config(given)
    settings = DiffEditSettings.read(args.edit, **DiffEditSettings.among(given))
    share, listed, mask = this_share(), "jobs" in given, None
    if "invert_mask" in given and not given.keys() & {"mask_path", "jobs"}:
        raise UserError("--invert_mask: expected --mask with it")
    if listed:
        if len(given.get("prompt", [])) > 1:
            raise UserError(f"--prompt: there are {len(args.prompt)}, expected one for all jobs that have none")
        needs = ("image",) if "prompt" in given else ("image", "prompt")
        jobs, wrong = read_jobs(args.jobs, needs, ("prompt", "source_prompt", "mask", "seed"))
    else:
        image = open_image(args.image)
    if "mask_path" in given:
        mask = open_mask(args.mask_path, image.size, "invert_mask" in given, settings.mask_rule, resize=False)
        of_the_mask = "source_prompt", *MASK_INFERENCE
        note_unused((f"--{name}" for name in of_the_mask if given.get(name)), "the mask is given")
    check_writable(args.outdir)

    device = choose_device(args.device, share.local_rank)
    model = load(args.config, given.get("ckpt"), device, args.precision, check=DiffEdit.check)
    precision = precision_of(model)
    editor = DiffEdit(model, settings)
    # Before anything is drawn: refuses a prompt that it cannot read, and warns of one that it has to cut
    model.conditioner.encoder.tokenizer([*given.get("prompt", []), args.source_prompt, args.negative_prompt])
    evaluations = settings.evaluations(mask=mask is None)
    if "round_trip" in given:
        evaluations += encoded_steps(settings.encode_ratio, settings.steps)
    if share.rank == 0:
        size = f"{len(jobs)} jobs" if listed else f"{image.width}x{image.height}"
        print(f"{size}, {settings.steps} steps, encoded to {settings.encode_ratio:g}, "
              f"guidance {settings.guidance_scale:g}, {evaluations} evaluations a picture, precision {precision}, "
              f"{device}{describe(model)}", flush=True)  # fmt: skip
    if listed:
        edit_jobs(args, editor, jobs, wrong, precision, share)
    else:
        edit_one(args, editor, image, mask, precision, evaluations)


def edit_one(
    args: argparse.Namespace,
    editor: "DiffEdit",
    image: "Image.Image",
    mask: "Tensor | None",
    precision: str,
    evaluations: int,
) -> None:
    """Edit a picture after each prompt.

    Args:
        evaluations: of the network that this takes, as expected.
    """
    from dataclasses import asdict

    from tqdm import tqdm

    from ldm.editors.mask_inference import EmptyMask
    from ldm.runs.diffedits import round_trips, save_diffedit, save_maps
    from ldm.runs.outputs import run_record

    given, prompts, stem = vars(args), args.prompt, args.image.stem
    record, figures = run_record(given, RECORDED, precision, editor.model.device), None
    with tqdm(total=evaluations, unit="evaluation", disable=None) as bar:

        def progress(stage: str, n: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total = max(bar.total, bar.n + n)  # several windows of `--crop auto` are edited one after another
            bar.update(n)

        try:
            result = editor(
                image, prompts, args.source_prompt, negative=args.negative_prompt, mask=mask, callback=progress
            )
        except EmptyMask as error:
            bar.close()
            for path in save_maps(error.maps, prompts, args.outdir, stem, record | asdict(editor.settings)):
                print(path)
            raise
        if "round_trip" in given:
            figures = [{"round_trip_psnr": value} for value in round_trips(editor, result.inversions, progress)]

    for i, prompt in enumerate(prompts):
        share = result.masks[i].histogram()[255] / (image.width * image.height)
        trip = f", round trip of the inversion {figures[i]['round_trip_psnr']:.1f} dB" if figures else ""
        print(f"{prompt}: mask {share:.1%} of the picture{trip}")
    for path in save_diffedit(result, image, prompts, args.outdir, stem, record, figures, "show_map" in given):
        print(path)


def edit_jobs(
    args: argparse.Namespace,
    editor: "DiffEdit",
    jobs: "Sequence[Job]",
    wrong: Sequence[str],
    precision: str,
    share: "Share",
) -> None:
    """Edit the pictures of a list; flags fill in what the list leaves out.

    Args:
        wrong: the errors of lines that are not jobs.
    """
    from ldm.runs.job_edits import DiffEditJobs
    from ldm.runs.work import editor_about, run_jobs

    how = {"negative": args.negative_prompt, "invert": "invert_mask" in args}
    about = {**editor_about(editor, precision), **how}
    (prompt,) = getattr(args, "prompt", [None])
    jobs = [job.with_defaults(prompt=prompt, source_prompt=args.source_prompt or None) for job in jobs]
    maker = DiffEditJobs(editor, args.outdir, **how)
    outcome = run_jobs(jobs, args.outdir, about, maker, batch=args.batch, share=share)
    if share.rank == 0:
        report_jobs(args.outdir, outcome.made, outcome.there, [*wrong, *outcome.failed])
