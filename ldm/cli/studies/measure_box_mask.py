"""Measure masks inferred inside a box on fresh ToyWorld scenes.

For each scene the box of one thing is given, and an exemplar of another class and colour from another scene. The mask
that `ldm edit --box` infers is compared with the renderer's mask of the thing, and edits with that mask are compared
with edits of the whole box, by a judge trained only on the renderer.
"""

from ldm.utils.cli import MASK_INFERENCE, Parser, add_mask_inference_flags, add_measuring_flags

EXAMPLES, COLUMNS, SIDE = 24, 2, 128  # of the grid


def main() -> None:
    parser = Parser(
        "Measure masks inferred inside a box on fresh ToyWorld scenes. Defaults are those of configs/edit/default.yaml "
        "and configs/diffedit/box.yaml."
    )
    add_measuring_flags(parser, model="toyworld", count=200, batch=25, out="outputs/measure_box_mask")
    add_mask_inference_flags(parser.add_argument_group("mask"))
    args = parser.parse_args()

    from dataclasses import asdict

    from tqdm import tqdm

    from ldm.checkpoints.open import load
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.presets import DiffEditSettings
    from ldm.runs.outputs import check_writable
    from ldm.studies.box_masks import compare_masks, mask_table, summary
    from ldm.studies.judging import example_grid, join
    from ldm.toyworld.scenes import ExemplarScenes, collate
    from ldm.utils.device import choose_device
    from ldm.utils.files import write_json
    from ldm.utils.png import save_png

    changes = {name: getattr(args, name) for name in MASK_INFERENCE if getattr(args, name) is not None}
    inference = DiffEditSettings.read("box", **changes)
    used = {name: getattr(inference, name) for name in (*MASK_INFERENCE, "seed")}
    check_writable(args.out)
    device = choose_device(args.device)
    judge = load(args.judge, device="cpu", root="judge")
    editor = ExemplarEditor(load(args.model, args.ckpt, device))
    print(f"{args.count} boxes, scenes of seed {args.seed}, {device}")
    print(", ".join(f"{name} {value:g}" for name, value in used.items()))

    data = ExemplarScenes(args.seed, args.count, editor.model.image_size)
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
        **summary(join(parts)),
        "chance": {head: 1 / layer.out_features for head, layer in judge.heads.items()},
        "device": str(device),
    }
    print(mask_table(report))
    grid = example_grid(examples, COLUMNS, max(SIDE // data.size, 1))
    save_png(grid, args.out / "examples.png", report)
    write_json(args.out / "report.json", report)
    print(
        f"{args.out}/report.json, {args.out}/examples.png (scene, map, mask, exemplar, edits with the mask and the box)"
    )
