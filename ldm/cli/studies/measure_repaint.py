"""Measure RePaint on fresh ToyWorld scenes.

Each scene gets its own hole, which is filled by RePaint, by RePaint without resampling from the same noise, and by
OpenCV's two methods. The results are compared with the original content.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.utils.cli import Parser, add_measuring_flags, add_precision_flag, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from ldm.editors.repaint import RePaint
    from ldm.presets import RePaintSettings
    from ldm.studies.hole_filling import Distances
    from ldm.toyworld.scenes import HoleScenes

RESAMPLED, ONCE = "RePaint", "no resampling"
WALK = {"steps": 50, "jump_length": 5, "jump_n_sample": 5}  # unless --edit is given
EXAMPLES, SIDE = 3, 128  # of each mask in the grid


def main() -> None:
    parser = Parser("Measure RePaint on fresh ToyWorld scenes. Defaults are those of --edit.")
    add_measuring_flags(parser, model="toyworld_prior", count=32, batch=16, out="outputs/measure_repaint", by="clip")
    add_precision_flag(parser)
    parser.add_argument("--masks", nargs="+", help="kinds of holes (default: the paper's six)")
    parser.add_argument("--size", type=positive, help="side of the scenes (default: the model's)")
    parser.add_argument("--edit", help="a name in configs/repaint, or your own YAML file (default: default, but with "
                        "{steps} steps and jumps of {jump_length}, {jump_n_sample} times)".format(**WALK))  # fmt: skip
    parser.add_argument("--sampler", help="of the steps down: ddpm, ddim or dpm_solver")
    parser.add_argument("--steps", type=int, help="number of steps of the grid")
    parser.add_argument("--jump_length", type=int, help="number of steps that a jump goes back up")
    parser.add_argument("--jump_n_sample", type=int, help="how often each segment is walked down")
    parser.add_argument("--eta", type=float, help="noise added in the steps of ddim, from 0 to 1")
    parser.add_argument("--lpips", type=Path, metavar="VGG16", help="also measure LPIPS, with torchvision's VGG16 file")
    args = parser.parse_args()

    import sys
    from dataclasses import asdict, replace

    from ldm.checkpoints.open import load, precision_of
    from ldm.diffusion.schedule import check_steps
    from ldm.editors.repaint import RePaint
    from ldm.evaluation.extractors import ToyWorldClip, open_extractor
    from ldm.presets import RePaintSettings
    from ldm.runs.outputs import check_writable
    from ldm.studies.hole_filling import CLASSICAL, DISTANCE, has_opencv, hole_table, won
    from ldm.studies.judging import example_grid
    from ldm.toyworld.scenes import HoleScenes
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.extras import how_to_install
    from ldm.utils.files import write_json
    from ldm.utils.holes import PAPER
    from ldm.utils.png import save_png

    if args.count < 2:
        raise UserError(f"--count {args.count}: expected 2 or more, which a standard error needs")
    names = ("sampler", "steps", "jump_length", "jump_n_sample", "eta")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = RePaintSettings.read(args.edit or "default", {} if args.edit else WALK, **changes)
    once = dict.fromkeys(("n_sample", "jump_n_sample", "jump2_n_sample", "jump3_n_sample"), 1)
    methods = {RESAMPLED: settings, ONCE: replace(settings, **once)}
    kinds = args.masks or PAPER
    for kind in kinds:
        HoleScenes(args.seed, args.count, kind)
    check_writable(args.out)
    device = choose_device(args.device)

    def check(model: Any) -> None:
        RePaint(model, settings).check_condition()
        check_steps(settings.steps, model.schedule.num_timesteps)

    model = load(args.model, args.ckpt, device, args.precision, check=check)
    precision = precision_of(model)
    editor, size = RePaint(model, settings), args.size or model.image_size
    if size % model.multiple:
        raise UserError(f"--size {size}: expected a multiple of {model.multiple}")
    distances: Distances = {DISTANCE: ToyWorldClip(load(args.clip, device=device)).distance}
    if args.lpips:
        distances["LPIPS"] = open_extractor("lpips_vgg", args.lpips, device)
    if not has_opencv():
        print(f"note: OpenCV is not installed, its methods are left out; {how_to_install('cv2')}", file=sys.stderr)
    classical = CLASSICAL if has_opencv() else {}
    print(f"{args.count} scenes of seed {args.seed} a mask, {size} px: {settings.sampler}, {settings.steps} steps, "
          f"jump {settings.jump_length}, {settings.jump_n_sample} times; precision {precision}, {device}")  # fmt: skip

    report = {
        "model": args.model,
        "weights": [str(file) for file in args.ckpt] if args.ckpt else "the model's own",
        "scenes": {"count": args.count, "seed": args.seed, "size": size},
        "settings": asdict(settings),
        "precision": precision,
        "device": str(device),
        "masks": {},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    examples, words = [], []
    for kind in kinds:
        scenes = HoleScenes(args.seed, args.count, kind, size)
        found, pictures = measure(scenes, args.batch, editor, methods, classical, distances)
        report["masks"][kind] = found
        report["better"] = won({name: mask["difference"] for name, mask in report["masks"].items()})
        examples += pictures
        words += [kind] * len(pictures)
        speed = ", ".join(f"{name} {value:.2f}" for name, value in found["images per second"].items())
        print(f"{kind}: images/s: {speed}", flush=True)
        write_json(args.out / "report.json", report)
        save_png(example_grid(examples, EXAMPLES, max(SIDE // size, 1), words), args.out / "examples.png", report)

    print(f"\n{hole_table(report['masks'], f'{RESAMPLED} - {ONCE}')}\n")
    for name, masks in report["better"].items():
        better, clearly, of = masks.values()
        print(f"{name}: {RESAMPLED} better than {ONCE} on {better} of {of} masks, by two standard errors on {clearly}")
    columns = ", ".join(["scene", "masked", *found["figures"]])
    print(f"{args.out}/report.json, {args.out}/examples.png ({columns})")


def measure(
    scenes: "HoleScenes",
    size: int,
    editor: "RePaint",
    methods: "Mapping[str, RePaintSettings]",
    classical: "Mapping[str, str]",
    distances: "Distances",
) -> tuple[dict[str, Any], list[list["Image.Image"]]]:
    """Measure one mask; return its part of the report, and the first scenes with the result of each method."""
    import time
    from collections import Counter, defaultdict

    import torch
    from tqdm import tqdm

    from ldm.studies.hole_filling import difference, fill, fill_classically, summary
    from ldm.studies.hole_filling import measure as measure_filled
    from ldm.studies.judging import join
    from ldm.toyworld.scenes import collate
    from ldm.utils.image import to_pil

    calls = {name: settings.calls() for name, settings in methods.items()}
    count, parts, exact, seconds, examples, covered = len(scenes), defaultdict(list), [], Counter(), [], 0.0
    with tqdm(total=count, unit=" scenes", unit_scale=True, desc=scenes.kind, disable=None) as bar:
        for start in range(0, count, size):
            indices = range(start, min(start + size, count))
            batch = collate([scenes[i] for i in indices])
            covered += batch["mask"].mean((1, 2, 3)).sum().item()
            filled = {}

            def progress(*_: object, share: float = len(indices) / sum(calls.values())) -> None:
                bar.update(share)

            for name, settings in methods.items():
                began = time.perf_counter()
                seeds = [settings.seed + i for i in indices]
                filled[name], known = fill(editor, settings, batch, seeds, progress)
                seconds[name] += time.perf_counter() - began
                exact.append(known)
            filled |= {name: fill_classically(name, batch) for name in classical}
            for name, pictures in filled.items():
                parts[name].append(measure_filled(pictures, batch, distances))
            masked = batch["image"] * (1 - batch["mask"])
            shown = [*(list(map(to_pil, pictures)) for pictures in (batch["image"], masked)), *filled.values()]
            examples = (examples + [list(group) for group in zip(*shown, strict=True)])[:EXAMPLES]
    figures = {name: join(part) for name, part in parts.items()}
    known = torch.cat(exact)
    return {
        "covered": covered / count,
        "calls": calls,
        "figures": {name: summary(values) for name, values in figures.items()},  # [mean, standard error]
        "difference": difference(*(figures[name] for name in methods)),
        "exact": f"{int(known.sum())} of {len(known)}",
        "images per second": {name: count / seconds[name] for name in methods},
    }, examples
