"""Make pictures with a pixel-space model, unconditionally or of one class.

ldm sample --n_samples 16 --outdir samples
ldm sample --config imagenet256 --ckpt 256x256_diffusion.pt --class_id 207
"""

import argparse
import math
from pathlib import Path

from ldm.utils.cli import Parser, add_classifier_flags, add_model_flags, positive

RECORDED = "config ckpt classifier classifier_config settings class_id".split()


def parse_args() -> argparse.Namespace:
    parser = Parser("Make pictures of the kind that a model was trained on.", presets="sample")
    only_if_given = {"argument_default": argparse.SUPPRESS}

    add_model_flags(parser, config="toyworld_prior")
    add_classifier_flags(parser)

    add = parser.add_argument_group("output", **only_if_given).add_argument
    add("--outdir", type=Path, default=Path("outputs/samples"), help="gets the folder samples, and a grid")

    group = parser.add_argument_group("sampling", "Settings not given here are taken from --settings.", **only_if_given)
    add = group.add_argument
    add("--settings", default="default", help="default, or a YAML file of your own")
    add("--n_samples", type=int, help="pictures in all; picture k has seed + k")
    add("--batch", type=positive, default=16, help="pictures made at once; does not change them")
    add("--class_id", type=int, help="what to show, if the model or the classifier knows classes: 0 for the first")
    add("--sampler", help="ddpm, ddim or dpm_solver")
    add("--steps", type=int, help="sampling steps")
    add("--eta", type=float, help="noise added in the steps of ddim, from 0 to 1")
    add("--seed", type=int, help="of the first picture")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    given = vars(args)

    from dataclasses import asdict

    from tqdm import tqdm

    from ldm.checkpoints.open import load, load_classifier, precision_of
    from ldm.cli.weights import choose_config, describe
    from ldm.compat.configs import load_config
    from ldm.diffusion.schedule import check_steps
    from ldm.editors.denoisers import check_class
    from ldm.editors.pixel_sampling import PixelSampler
    from ldm.presets import PixelSampling
    from ldm.runs.outputs import check_writable, run_record
    from ldm.runs.samples import save_grid, save_unprompted
    from ldm.utils.device import choose_device

    choose_config(given)
    config, class_id = load_config(args.config), given.get("class_id")
    conf = {key: value for key, value in config.get("repaint", {}).items() if key == "classifier_scale"}
    changes = PixelSampling.among(given)
    settings = PixelSampling.read(args.settings, conf, **changes)
    check_writable(args.outdir)

    device = choose_device(args.device)
    classifier = load_classifier(given, config, device, args.precision)

    def check(model):  # before its weights are read
        PixelSampler(model, settings, classifier)
        check_class(model, class_id, classifier)
        check_steps(settings.steps, model.schedule.num_timesteps)

    model = load(config, given.get("ckpt"), device, args.precision, check=check, name=args.config)
    precision = precision_of(model)
    sampler, count, side = PixelSampler(model, settings, classifier), settings.n_samples, model.image_size
    print(f"{count} pictures of {side}x{side}, {settings.sampler}, {settings.steps} steps, precision {precision}, "
          f"{device}{describe(model)}")  # fmt: skip

    record, pictures = run_record(given, RECORDED, precision, device), []
    for first in range(0, count, args.batch):
        n = min(args.batch, count - first)
        seed = settings.seed + first
        with tqdm(total=settings.steps, desc=f"seed {seed}", unit="step", disable=None) as bar:
            result = sampler(class_id=class_id, seed=seed, n_samples=n, callback=lambda *_: bar.update())  # noqa: B023
        print(*save_unprompted(result, args.outdir, record), sep="\n")
        pictures += result.images
    print(save_grid(pictures, math.ceil(count**0.5), args.outdir, {**record, **asdict(settings)}))
