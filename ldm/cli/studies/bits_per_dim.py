"""Measure how well a pixel-space model predicts new pictures, in bits per dimension.

ldm bits-per-dim --data PATH --config logs/RUN/config.yaml --count 500
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.utils.cli import Parser, add_model_flags, positive

if TYPE_CHECKING:
    import torch

    from ldm.models.pixel_diffusion import PixelDiffusion

TOYWORLD = "toyworld"
VARIANCES = ("fixed_small", "fixed_large", "learned_range", "learned_clipped")  # of ldm.diffusion.variance


def parse_args() -> argparse.Namespace:
    parser = Parser("Bound the negative log-likelihood of pictures under a pixel-space model, in bits per dimension.")
    add_model_flags(parser, config="toyworld_prior")
    group = parser.add_argument_group("pictures")
    add = group.add_argument
    add("--data", default=TOYWORLD, help="a folder of pictures, searched recursively; or toyworld, for fresh scenes")
    add("--count", type=positive, default=100, help="maximum number of pictures")
    add("--class_id", type=int, help="the class of all pictures, for a class-conditional model")
    group = parser.add_argument_group("evaluation")
    add = group.add_argument
    add("--steps", type=int, help="number of timesteps of a shorter process (default: all of the model's)")
    add("--variance", choices=VARIANCES, help="of the steps (default: the model's own)")
    add("--batch", type=positive, default=16, help="number of pictures in a batch; does not change results")
    add(
        "--seed",
        type=int,
        default=1000,
        help="of the noise and of ToyWorld's scenes, which no training set contains",
    )
    add("--out", type=Path, default=Path("outputs/bits_per_dim.json"), help="file for the results")
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    import os
    import time
    from functools import partial
    from itertools import islice

    import torch
    from tqdm import tqdm

    from ldm.checkpoints.open import load, precision_of
    from ldm.cli.weights import choose_config
    from ldm.diffusion.vlb import Bound, bound
    from ldm.editors.denoisers import check_class, class_denoiser
    from ldm.evaluation.metrics import mean
    from ldm.models.pixel_diffusion import PixelDiffusion
    from ldm.runs.outputs import check_writable
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.files import write_json
    from ldm.utils.random import NoiseSource, key_seed

    choose_config(vars(args))

    def check(model: torch.nn.Module) -> None:
        if not isinstance(model, PixelDiffusion):
            raise UserError(f"config {args.config}: {type(model).__name__} is not a pixel-space model")
        variance = args.variance or model.variance
        PixelDiffusion(model.unet, model.schedule, model.image_size, model.prediction, variance)  # checks the variance
        check_class(model, args.class_id, None)
        visited_timesteps(model, args.steps)

    if os.path.isdir(args.out):
        raise UserError(f"--out {args.out}: is a folder, expected a file")
    check_writable(args.out.parent)
    device, given = choose_device(args.device), vars(args)
    model = load(args.config, given.get("ckpt"), device, args.precision, check=check)
    precision = precision_of(model)
    timesteps, variance = visited_timesteps(model, args.steps), args.variance or model.variance
    found, pictures = pictures_of(args.data, args.count, model.image_size, args.seed)
    pictures = islice(pictures, args.count)

    parts, done, began = [], 0, time.perf_counter()
    with tqdm(total=min(args.count, found) * len(timesteps), unit=" timesteps", disable=None) as bar:
        while batch := list(islice(pictures, args.batch)):
            items = range(done, done := done + len(batch))
            noise = NoiseSource(key_seed(args.seed, "bound", item) for item in items)
            denoise, _ = class_denoiser(model, [args.class_id] * len(batch), None, 0.0, ancestral=True)
            x0 = torch.stack(batch).to(device)
            tick = partial(bar.update, len(batch))
            parts.append(bound(denoise, x0, model.schedule, timesteps, variance, noise.randn, tick))
    if not parts:
        raise UserError(f"--data {args.data}: cannot read any of the {found} pictures")
    whole = Bound(*(torch.cat([getattr(part, name).cpu().double() for part in parts]) for name in ("terms", "prior")))
    values = {name: getattr(whole, name) for name in ("total", "prior", "decoder")}
    figures = {name: mean(value) if done > 1 else (value.item(), None) for name, value in values.items()}
    report = {
        "model": args.config,
        "weights": [str(file) for file in given["ckpt"]] if "ckpt" in given else "the model's own",
        "data": args.data,
        "count": done,
        "seed": args.seed,
        "steps": len(timesteps),
        "variance": variance,
        "bits per dimension": figures,  # [mean, standard error]
        "terms": whole.terms.mean(0).tolist(),  # ascending from t = 0, the decoder's term
        "seconds": time.perf_counter() - began,
        "precision": precision,
        "device": str(device),
    }
    print(f"{done} pictures, {len(timesteps)} timesteps, {variance}: bits per dimension")
    for name, (value, error) in figures.items():
        print(f"{name:8}{value:10.4f}" + ("" if error is None else f" ± {error:.4f}"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, report)
    print(args.out)


def visited_timesteps(model: "PixelDiffusion", steps: int | None) -> "torch.Tensor":
    """Return the timesteps of a process with `steps` steps, by default all of the model's."""
    from ldm.diffusion.schedule import strided_timesteps

    T = model.schedule.num_timesteps
    return strided_timesteps(T if steps is None else steps, T)


def pictures_of(data: str, count: int, size: int, seed: int) -> tuple[int, Iterator[Any]]:
    """Return the number of pictures and an iterator over them, (3, size, size) in [-1, 1].

    Unreadable pictures are reported and left out.
    """
    from ldm.data.images import array_to_tensor, centre_square, picture_files, read_picture
    from ldm.toyworld.datasets import ToyScenes
    from ldm.utils.errors import UserError

    if data == TOYWORLD:
        scenes = ToyScenes(count, size, seed)
        return count, (scenes[item]["image"] for item in range(count))
    files = picture_files(data)

    def readable() -> Iterator[Any]:
        for file in files:
            try:
                yield array_to_tensor(centre_square(read_picture(file), size))
            except UserError as error:
                print(f"{error}; left out", file=sys.stderr)

    return len(files), readable()
