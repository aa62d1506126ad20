"""Compare RePaint's ways to walk through time on one kind of hole.

Writes OUT/repaint_study.json, with the figures of every scene, and OUT/repaint_study.png. An interrupted study
continues where it stopped.
"""

from ldm.utils.cli import Parser, add_measuring_flags, add_precision_flag, positive

CURVES = ("resampled", "slower", "fast")  # of ldm.studies.repaint_study


def main() -> None:
    parser = Parser("Compare RePaint's ways through time on ToyWorld. An interrupted study continues.")
    add_measuring_flags(parser, model="toyworld_prior", count=32, batch=16, out="docs/results", by="clip")
    add_precision_flag(parser)
    parser.add_argument("--mask", default="wide", help="kind of the holes")
    parser.add_argument("--full_count", type=positive, default=16, help="number of scenes for the full schedule")
    parser.add_argument("--full", nargs=3, type=int, default=[250, 10, 10], metavar=("STEPS", "LENGTH", "TIMES"),
                        help="the full schedule")  # fmt: skip
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=CURVES, help="curves to compare with it")
    args = parser.parse_args()

    from dataclasses import asdict

    from ldm.checkpoints.open import load, precision_of
    from ldm.editors.repaint import RePaint
    from ldm.evaluation.extractors import ToyWorldClip
    from ldm.presets import RePaintSettings
    from ldm.runs.kept_results import fingerprint
    from ldm.runs.outputs import check_writable
    from ldm.studies import repaint_study
    from ldm.studies.hole_filling import DISTANCE
    from ldm.studies.repaint_study import MARGIN, SHARE, RePaintStudy, Way, cheapest, plot_repaint, repaint_table
    from ldm.toyworld.scenes import HoleScenes
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError

    if min(args.count, args.full_count) < 2:
        raise UserError("--count, --full_count: expected 2 or more, which a standard error needs")
    full_way, base = Way("ddpm", *args.full), RePaintSettings.read()
    full_way.calls(base)
    ways = {curve: repaint_study.CURVES[curve] for curve in args.curves}
    HoleScenes(args.seed, args.count, args.mask)
    check_writable(args.out)
    device = choose_device(args.device)
    model = load(
        args.model, args.ckpt, device, args.precision, check=lambda model: RePaint(model, base).check_condition()
    )
    precision = precision_of(model)
    clip = load(args.clip, device=device)
    scenes = HoleScenes(args.seed, max(args.count, args.full_count), args.mask, model.image_size)
    about = {
        "networks": fingerprint(model, clip),
        "precision": precision,
        "scenes": {"mask": args.mask, "seed": args.seed, "size": scenes.size},
        "settings": asdict(base),
        "variance": getattr(model, "variance", None),
    }
    file = args.out / "repaint_study.json"
    study = RePaintStudy(RePaint(model, base), {DISTANCE: ToyWorldClip(clip).distance}, scenes, about, file, args.batch)
    print(f"{args.count} scenes of seed {args.seed}, {args.mask} masks; precision {precision}, {device}", flush=True)

    # cheap ways first, so that an interrupted study has most of its points
    for way in sorted(set(sum(ways.values(), [])), key=lambda way: (way.calls(base), str(way))):
        result = study.result(way, args.count)
        distance = sum(result.figures[DISTANCE]) / len(result)
        print(f"{way}: {way.calls(base):,} calls, {DISTANCE} {distance:.4f}, "
              f"{result.seconds / len(result):.2f} s/scene", flush=True)  # fmt: skip
    reference = study.result(full_way, args.full_count)
    full = study.point(full_way, args.full_count, reference)
    curves = {curve: [study.point(way, args.count, reference) for way in points] for curve, points in ways.items()}
    plot_repaint(curves, full, f"{args.mask} masks", args.out / "repaint_study.png")

    print(f"\n{repaint_table(curves, full)}\n")
    every = [point for points in curves.values() for point in points]
    choice = cheapest(every, full)
    exact = sum(point.exact for point in (*every, full))
    print(f"known pixels exact in {exact} of {len(every) + 1} ways")
    print(f"within {MARGIN} standard errors of {full_way} in all figures, at most {100 * SHARE:.0f} % of its calls: "
          + (f"{choice.way}, {choice.calls} of {full.calls:,} calls" if choice else "none"))  # fmt: skip
    print(f"{file}, {args.out / 'repaint_study.png'}")
