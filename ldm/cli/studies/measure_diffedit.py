"""Measure DiffEdit on fresh ToyWorld scenes.

One thing of each scene is to get another colour or another class: the target is the scene's caption with one word
changed. A judge trained only on the renderer classifies the thing's box after the edit, and the renderer's mask of the
thing is the reference for the inferred mask.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.utils.cli import MASK_INFERENCE, Parser, add_mask_inference_flags, add_measuring_flags, positive

if TYPE_CHECKING:
    from ldm.editors.diffedit import DiffEdit
    from ldm.studies.caption_edits import Example
    from ldm.studies.tradeoff import TradeoffStudy
    from ldm.toyworld.judge import Judge
    from ldm.toyworld.scenes import CaptionScenes

EXAMPLES, COLUMNS, SIDE = 24, 4, 192  # of the grids
RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the study
REAL = 4  # number of real things per edit in the study


def main() -> None:
    parser = Parser("Measure DiffEdit on fresh ToyWorld scenes. Defaults are those of configs/diffedit.")
    add_measuring_flags(parser, model="toyworld_text", count=200, batch=25, out="outputs/measure_diffedit")
    parser.add_argument("--changes", nargs="+", choices=("colour", "class"), default=["colour", "class"])
    parser.add_argument("--size", type=positive, help="side of the scenes (default: the model's)")
    parser.add_argument("--settings", default="default", help="a name in configs/diffedit, or your own YAML file")
    parser.add_argument(
        "--source", choices=("caption", "empty"), default="caption", help="source text of the masks used for the edits"
    )
    parser.add_argument("--steps", type=positive, help="number of steps of the DDIM grid")
    parser.add_argument("--guidance_scale", type=float, help="1 for no guidance")
    parser.add_argument("--encode_ratio", type=float, help="share of the grid over which a scene is encoded")
    parser.add_argument("--study", type=positive, metavar="N", help="also run the trade-off study, on N of the edits")
    parser.add_argument("--plot", type=Path, help="plot of the study (default: study.png in --out)")
    add_mask_inference_flags(parser.add_argument_group("mask"))
    args = parser.parse_args()

    from dataclasses import asdict

    from ldm.checkpoints.open import load
    from ldm.editors.diffedit import DiffEdit
    from ldm.runs.outputs import check_writable
    from ldm.studies.caption_edits import edit_table
    from ldm.studies.judging import example_grid
    from ldm.studies.tradeoff import plot_tradeoff, tradeoff_table
    from ldm.toyworld.scenes import CaptionScenes
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.files import write_json
    from ldm.utils.png import save_png

    names = ("steps", "guidance_scale", "encode_ratio", *MASK_INFERENCE)
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.study and min(args.study, args.count) < 2:
        raise UserError(f"--study {args.study}: expected 2 or more edits, which a covariance needs")
    plot = args.plot or args.out / "study.png"
    for folder in (args.out, plot.parent):
        check_writable(folder)
    device = choose_device(args.device)
    editor = DiffEdit(load(args.model, args.ckpt, device), args.settings, **changes)
    judge = load(args.judge, device="cpu", root="judge")
    size, multiple, settings = args.size or editor.model.image_size, editor.model.multiple, editor.settings
    if size % multiple:
        raise UserError(f"--size {size}: expected a multiple of {multiple}")
    print(f"{args.count} edits of each change, scenes of seed {args.seed}, {size} px; source: {args.source}; {device}")
    print(", ".join(f"{name} {value}" for name, value in asdict(settings).items()))

    report = {
        "model": args.model,
        "weights": [str(file) for file in args.ckpt] if args.ckpt else "the model's own",
        "scenes": {"count": args.count, "seed": args.seed, "size": size},
        "settings": asdict(settings),
        "source": args.source,
        "chance": {head: 1 / layer.out_features for head, layer in judge.heads.items()},
        "device": str(device),
        "changes": {},
        "study": {},
    }
    for folder in (args.out, plot.parent):
        folder.mkdir(parents=True, exist_ok=True)
    studies = {}
    for change in args.changes:
        scenes = Scenes(CaptionScenes(args.seed, args.count, change, size), args.batch)
        found, examples = measure(scenes, editor, judge, args.source)
        report["changes"][change] = found
        print(f"\n{change} edits\n{edit_table(found, list(report['chance'].values()))}")
        print(f"{found['edits per second']:.2f} edits per second on {device}")
        pictures = [(e.scene, e.map, e.mask, e.edit) for e in examples]
        grid = example_grid(pictures, COLUMNS, max(SIDE // size, 1), [e.words for e in examples])
        save_png(grid, args.out / f"{change}.png", {**report, "changes": {change: found}})
        if args.study:
            studies[change] = study(scenes, editor, judge, args.source, min(args.study, args.count))
            report["study"][change] = studies[change].report()
            print(f"\n{change} edits, trade-off\n{tradeoff_table(studies[change])}")
        write_json(args.out / "report.json", report)
    if studies:
        plot_tradeoff(studies, plot)
    grids = ", ".join(f"{args.out}/{change}.png" for change in args.changes)
    print(f"\n{args.out}/report.json, {grids} (scene, map, mask, edit){f', {plot}' if studies else ''}")


class Scenes:
    """Batches of scenes to edit, and of real things as the edits should show them."""

    def __init__(self, data: "CaptionScenes", batch: int):
        self.data, self.batch = data, batch

    def edits(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield batches of the first `count` scenes."""
        from ldm.toyworld.scenes import collate

        for start in range(0, count, self.batch):
            yield collate([self.data[i] for i in range(start, min(start + self.batch, count))])

    def real_things(self, count: int, each: int, seed: int) -> Iterator[dict[str, Any]]:
        """Yield batches of real things, `each` for every one of the first `count` scenes."""
        from ldm.toyworld.scenes import collate, draw_things

        items = (self.data[i] for i in range(count))
        wanted = [(item["class"], item["colour"], item["pattern"]) for item in items]
        things = list(draw_things(wanted * each, seed, self.data.size))
        for start in range(0, len(things), self.batch):
            yield collate(things[start : start + self.batch])


def measure(scenes: Scenes, editor: "DiffEdit", judge: "Judge", source: str) -> tuple[dict[str, Any], list["Example"]]:
    """Measure one change; return its part of the report and the first edits."""
    from tqdm import tqdm

    from ldm.studies.caption_edits import edit_and_judge, references, summary
    from ldm.studies.judging import join

    count, parts, examples, began = len(scenes.data), [], [], time.perf_counter()
    with tqdm(total=count, unit=" edits", desc=scenes.data.change, disable=None) as bar:
        for batch in scenes.edits(count):
            edits, figures = edit_and_judge(editor, judge, batch, source)
            parts.append(figures)
            examples = (examples + edits)[:EXAMPLES]
            bar.update(len(edits))
    seconds = time.perf_counter() - began
    drawn = [references(editor, judge, things) for things in scenes.real_things(count, 1, scenes.data.seed)]
    return {**summary(join(parts) | join(drawn)), "edits per second": count / seconds}, examples


def study(scenes: Scenes, editor: "DiffEdit", judge: "Judge", source: str, count: int) -> "TradeoffStudy":
    """Run the trade-off study of one change."""
    import torch
    from tqdm import tqdm

    from ldm.studies.judging import join
    from ldm.studies.tradeoff import METHODS, edit_all_ways, summarise, unchanged

    change, seed, ways = scenes.data.change, scenes.data.seed, len(METHODS) * len(RATIOS)
    kept, parts, done = [], defaultdict(list), 0
    with tqdm(total=count * ways, unit=" edits", desc=f"{change}, trade-off", disable=None) as bar:
        for batch in scenes.edits(count):
            n = len(batch["image"])
            kept.append(unchanged(editor, judge, batch))
            for key, figures in edit_all_ways(editor, judge, batch, RATIOS, source, range(done, done + n)):
                parts[key].append(figures)
                bar.update(n)
            done += n
    with torch.no_grad():
        real, others = (
            torch.cat([judge.features(t["image"], t["box"]) for t in scenes.real_things(count, each, seed + offset)])
            for offset, each in ((0, REAL), (1, 1))
        )
    return summarise(change, {key: join(part) for key, part in parts.items()}, join(kept), real, others)
