"""Measure masks found in a box on fresh ToyWorld scenes: `python scripts/measure_box_mask.py --count 200 --seed 1000`.

The box of one thing in each scene is given, and an exemplar of another class and colour, from another scene. The mask
that `scripts/inference.py --box` finds is compared with the renderer's own mask of the thing, and edits with that mask
with edits that have the whole box as their mask, by a judge trained on the renderer alone.
"""

from pathlib import Path

from ldm.utils.cli import Parser, add_mask_inference_flags, positive, run

EXAMPLES, COLUMNS, SIDE = 24, 2, 128  # of the grid
OF_THE_MASK = ("n_maps", "strength", "threshold", "clamp")


def main() -> None:
    parser = Parser(
        "Measure masks found in a box on fresh ToyWorld scenes. What is not given is as in configs/edit/default.yaml "
        "and configs/diffedit/default.yaml."
    )
    parser.add_argument("--model", default="toyworld", help="a config file, or a name in configs/")
    parser.add_argument("--ckpt", nargs="+", type=Path, help="the weights, if not those that the config names")
    parser.add_argument("--judge", default="toyworld_judge", help="the judge's config")
    parser.add_argument("--count", type=positive, default=200, help="number of edits")
    parser.add_argument("--seed", type=int, default=1000, help="of the scenes: no training set holds any of them")
    parser.add_argument("--batch", type=positive, default=25, help="edits made at once; does not change them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/measure_box_mask"), help="folder of report and pictures"
    )
    add_mask_inference_flags(parser.add_argument_group("mask"))
    args = parser.parse_args()

    import json
    from dataclasses import asdict

    import torch
    from tqdm import tqdm

    from ldm.checkpoints.load import load
    from ldm.data.toyworld_cross import CrossExemplars, collate
    from ldm.runs.box_masks import compare_masks, summary, table
    from ldm.runs.cross_edits import example_grid
    from ldm.runs.outputs import check_writable, save_png
    from ldm.runs.settings import diffedit_settings, exemplar_editor
    from ldm.utils.device import choose_device
    from ldm.utils.files import replacing

    changes = {name: getattr(args, name) for name in OF_THE_MASK if getattr(args, name) is not None}
    inference = diffedit_settings(**changes)
    used = {name: getattr(inference, name) for name in (*OF_THE_MASK, "seed")}
    check_writable(args.out)
    device = choose_device(args.device)
    judge = load(args.judge, root="judge")
    editor = exemplar_editor(load(args.model, args.ckpt, device))
    print(f"{args.count} boxes, scenes of seed {args.seed}, {device}")
    print(", ".join(f"{name} {value:g}" for name, value in used.items()))

    data = CrossExemplars(args.seed, args.count, editor.model.image_size)
    parts, examples = [], []
    with tqdm(total=args.count, unit=" boxes", disable=None) as bar:
        for start in range(0, args.count, args.batch):
            indices = range(start, min(start + args.batch, args.count))
            batch = collate([data[i] for i in indices])
            seeds = [editor.settings.seed + i for i in indices]
            pictures, figures = compare_masks(editor, judge, batch, seeds, inference)
            parts.append(figures)
            examples = (examples + pictures)[:EXAMPLES]
            bar.update(len(indices))

    report = {
        "model": args.model,
        "weights": [str(file) for file in args.ckpt] if args.ckpt else "the model's own",
        "scenes": {"count": args.count, "seed": args.seed},
        "settings": asdict(editor.settings),
        "mask": used,
        **summary({name: torch.cat([part[name] for part in parts]) for name in parts[0]}),
        "chance": {head: 1 / layer.out_features for head, layer in judge.heads.items()},
        "device": str(device),
    }
    print(table(report))
    grid = example_grid(examples, COLUMNS, max(SIDE // data.size, 1))
    save_png(grid, args.out / "examples.png", report)
    with replacing(args.out / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(
        f"{args.out}/report.json, {args.out}/examples.png (scene, map, mask, exemplar, edit with it, edit with the box)"
    )


if __name__ == "__main__":
    run(main)
