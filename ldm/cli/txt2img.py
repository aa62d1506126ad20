"""Make pictures from a prompt.

Flags and output folders are those of Stable Diffusion's script.

ldm txt2img --prompt "a red ball on a meadow" --outdir results
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, add_model_flags, add_sampling_flags, note_unused, positive

IGNORED = ("C", "f", "laion400m")
RECORDED = "from_file config ckpt settings n_iter fixed_code".split()


def parse_args() -> argparse.Namespace:
    parser = Parser("Make pictures from a prompt.", presets="txt2img")
    only_if_given = {"argument_default": argparse.SUPPRESS}

    group = parser.add_argument_group("pictures", **only_if_given)
    prompts = group.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", help="what to show")
    prompts.add_argument("--from-file", type=Path, help="a text file with a prompt in each line")
    add = group.add_argument
    add("--negative_prompt", default="", help="what not to show")
    add("--H", type=positive, help="height in pixels, any (default: as the model was trained)")
    add("--W", type=positive, help="width in pixels, any (default: as the model was trained)")

    add_model_flags(parser, config="toyworld_text")

    add = parser.add_argument_group("output", **only_if_given).add_argument
    add("--outdir", type=Path, default=Path("outputs/txt2img-samples"), help="gets the folder samples, and grids")
    add("--skip_save", action="store_true", help="write no single pictures")
    add("--skip_grid", action="store_true", help="write no grid")
    add("--n_rows", type=int, default=0, help="pictures in a row of the grid; 0 for --n_samples (default)")

    group = parser.add_argument_group("sampling", "Settings not given here are taken from --settings.", **only_if_given)
    add = group.add_argument
    add("--settings", default="default", help="default, or a YAML file of your own")
    add_sampling_flags(group)
    add("--n_iter", type=positive, default=1, help="batches of a prompt; over all of them, sample k has seed + k")
    add("--fixed_code", action="store_true", help="start all batches from the same noise, that of the first")
    for name in ("C", "f"):
        add(f"--{name}", type=int, help=argparse.SUPPRESS)
    add("--laion400m", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    given = vars(args)

    from dataclasses import asdict

    from tqdm import tqdm

    from ldm.checkpoints.open import load, precision_of
    from ldm.cli.weights import choose_config, describe
    from ldm.editors.text_to_image import TextToImage
    from ldm.presets import Sampling
    from ldm.runs.outputs import check_writable, run_record
    from ldm.runs.samples import read_prompts, save_grid, save_samples
    from ldm.utils.device import choose_device

    choose_config(given)
    note_unused(f"--{name}" for name in IGNORED if name in given)
    changes = Sampling.among(given)
    settings = Sampling.read(args.settings, **changes)
    prompts = read_prompts(args.from_file) if "from_file" in given else [args.prompt]
    check_writable(args.outdir)

    device = choose_device(args.device)
    model = load(args.config, given.get("ckpt"), device, args.precision, check=TextToImage.check)
    precision = precision_of(model)
    editor = TextToImage(model, settings)
    height, width = given.get("H", model.image_size), given.get("W", model.image_size)
    # Before the first picture: refuses a prompt that it cannot read, and warns of one that it has to cut
    model.conditioner.encoder.tokenizer([*prompts, args.negative_prompt])
    print(f"{width}x{height}, {settings.sampler}, {settings.steps} steps, guidance {settings.guidance_scale:g}, "
          f"precision {precision}, {device}{describe(model)}")  # fmt: skip

    record, n = run_record(given, RECORDED, precision, device), settings.n_samples
    start_seeds = [settings.seed + k for k in range(n)] if "fixed_code" in given else None
    pictures = []
    for prompt in prompts:
        for batch in range(args.n_iter):
            with tqdm(total=settings.steps, desc=prompt[:40], unit="step", disable=None) as bar:
                result = editor(
                    prompt,
                    args.negative_prompt,
                    height=height,
                    width=width,
                    callback=lambda *_: bar.update(),  # noqa: B023
                    start_seeds=start_seeds,
                    seed=settings.seed + batch * n,
                )
            if "skip_save" not in given:
                print(*save_samples(result, args.outdir, record), sep="\n")
            if "skip_grid" not in given:
                pictures += result.images
    if pictures:
        shown = {"prompts": prompts, "negative_prompt": args.negative_prompt, "H": height, "W": width}
        columns = args.n_rows if args.n_rows > 0 else n
        print(save_grid(pictures, columns, args.outdir, {**record, **shown, **asdict(settings)}))
