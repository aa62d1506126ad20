"""Measure editing by example on fresh ToyWorld scenes.

The mask in each scene is the box of one thing; the exemplar is a thing of another class and colour from another scene.
A judge trained only on the renderer decides whether the edit shows the exemplar's class, colour and pattern.
"""

from ldm.utils.cli import Parser, add_measuring_flags

EXAMPLES, COLUMNS, SCALE = 24, 4, 4  # of the grid


def main() -> None:
    parser = Parser(
        "Measure editing by example on fresh ToyWorld scenes. Defaults are those of configs/edit/default.yaml."
    )
    add_measuring_flags(parser, model="toyworld", count=500, batch=50, out="outputs/measure_toyworld")
    parser.add_argument("--sampler", help="ddim, ddpm, dpm_solver or plms")
    parser.add_argument("--steps", type=int, help="number of sampling steps")
    parser.add_argument("--guidance_scale", type=float, help="1 for no guidance")
    args = parser.parse_args()

    import time
    from dataclasses import asdict

    from tqdm import tqdm

    from ldm.checkpoints.open import load
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.evaluation.metrics import mean, pooled_psnr
    from ldm.runs.outputs import check_writable
    from ldm.studies.exemplar_edits import edit_and_judge, references
    from ldm.studies.judging import example_grid, join
    from ldm.toyworld.scenes import ExemplarScenes, collate
    from ldm.utils.device import choose_device
    from ldm.utils.files import write_json
    from ldm.utils.image import to_pil
    from ldm.utils.png import save_png

    check_writable(args.out)
    changes = {name: getattr(args, name) for name in ("sampler", "steps", "guidance_scale")}
    device = choose_device(args.device)
    judge = load(args.judge, device="cpu", root="judge")
    editor = ExemplarEditor(load(args.model, args.ckpt, device), **{k: v for k, v in changes.items() if v is not None})
    settings = editor.settings
    print(f"{args.count} edits, scenes of seed {args.seed}: {settings.sampler}, {settings.steps} steps, "
          f"guidance {settings.guidance_scale:g}, {device}")  # fmt: skip

    data = ExemplarScenes(args.seed, args.count, editor.model.image_size)
    parts, examples, seconds = [], [], 0.0
    with tqdm(total=args.count, unit=" edits", disable=None) as bar:
        for start in range(0, args.count, args.batch):
            indices = range(start, min(start + args.batch, args.count))
            batch = collate([data[i] for i in indices])
            began = time.perf_counter()
            pictures, figures = edit_and_judge(editor, judge, batch, seeds=[settings.seed + i for i in indices])
            seconds += time.perf_counter() - began
            parts.append(figures | references(editor, judge, batch))
            for scene, mask, exemplar, picture in zip(
                batch["image"], batch["mask"], batch["exemplar"], pictures, strict=True
            ):
                white = to_pil((2 * mask - 1).expand(3, -1, -1))
                examples.append((to_pil(scene), white, exemplar.resize(picture.size), picture))
            examples = examples[:EXAMPLES]
            bar.update(len(indices))

    values = join(parts)
    report = {
        "model": args.model,
        "weights": [str(file) for file in args.ckpt] if args.ckpt else "the model's own",
        "scenes": {"count": args.count, "seed": args.seed},
        "settings": asdict(settings),
        "figures": {name: mean(v) for name, v in values.items() if name != "exact"},  # [mean, standard error]
        "pooled dB": {name: pooled_psnr(values[name]) for name in ("background", "background round trip")},
        "chance": {head: 1 / layer.out_features for head, layer in judge.heads.items()},
        "exact": f"{int(values['exact'].sum())} of {args.count}",
        "edits per second": args.count / seconds,
        "device": str(device),
    }
    print(table(report))
    save_png(example_grid(examples, COLUMNS, SCALE), args.out / "examples.png", report)
    write_json(args.out / "report.json", report)
    print(f"{args.out}/report.json, {args.out}/examples.png (scene, mask, exemplar, edit)")


def table(report: dict) -> str:
    """Format the report for people."""
    from ldm.studies.judging import judged_table

    figures = report["figures"]
    rows = {"edit": "edits", "real": "things as drawn", "round trip": "after one round trip"}
    lines = [judged_table(figures, rows, list(report["chance"].values()))]
    lines += ["", "outside the mask, before compositing (mean over pictures; pooled over all pixels)"]
    for name, title in {"background": "edits", "background round trip": "one round trip"}.items():
        decibels, error = figures[name]
        lines.append(f"{title:24}{decibels:8.2f} ± {error:.2f} dB{report['pooled dB'][name]:10.2f} dB")
    return "\n".join(
        [
            *lines,
            f"after compositing, byte for byte the scene's beyond the feather: {report['exact']}",
            f"{report['edits per second']:.2f} edits per second on {report['device']}",
        ]
    )
