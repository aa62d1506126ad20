"""Compare samplers, numbers of steps and guidance scales on ToyWorld.

Writes OUT.json, with one entry per setting, and OUT.png. An interrupted study continues where it stopped.
"""

from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError

SAMPLERS = ("ddim", "plms", "dpm_solver")


def main() -> None:
    parser = Parser(
        "Compare samplers, steps and guidance on ToyWorld. An interrupted study continues where it stopped."
    )
    parser.add_argument(
        "--config", "--model", dest="model", default="toyworld", help="a config file, or a name in configs/"
    )
    parser.add_argument("--ckpt", nargs="+", type=Path, help="the weights (default: those that the config names)")
    parser.add_argument("--judge", default="toyworld_judge", help="the judge's config")
    parser.add_argument("--count", type=int, default=48, help="number of scenes edited in each setting")
    parser.add_argument("--seed", type=int, default=2000, help="of the scenes")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[5, 8, 10, 15, 20, 30, 50, 100], help="numbers of steps to compare"
    )
    parser.add_argument(
        "--guidance_scale", type=float, help="for comparing samplers (default: that of configs/edit/default.yaml)"
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", default=[1, 2, 3, 5, 7], help="guidance scales to try at the setting found"
    )
    parser.add_argument("--reference", type=int, default=50, help="number of PLMS steps of the reference")
    parser.add_argument("--repeats", type=int, default=3, help="number of seeds, for the seed noise")
    parser.add_argument("--batch", type=int, default=32, help="number of edits in a batch; does not change results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, ...")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results/sampler_study"), help="writes OUT.json and OUT.png"
    )
    args = parser.parse_args()
    for name, least in {"count": 1, "batch": 1, "repeats": 2}.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)}: expected {least} or more")

    from dataclasses import replace

    from ldm.checkpoints.open import load
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.runs.outputs import check_writable
    from ldm.studies.sampler_study import SamplerStudy, Setting, cheapest, plot_samplers, sampler_table, seed_noise
    from ldm.toyworld.scenes import ExemplarScenes, collate
    from ldm.utils.device import choose_device

    check_writable(args.out.parent)
    editor = ExemplarEditor(load(args.model, args.ckpt, choose_device(args.device)))
    scale = editor.settings.guidance_scale if args.guidance_scale is None else args.guidance_scale
    data = ExemplarScenes(args.seed, args.count, editor.model.image_size)
    batches = [
        collate([data[i] for i in range(start, min(start + args.batch, args.count))])
        for start in range(0, args.count, args.batch)
    ]
    study = SamplerStudy(
        editor,
        load(args.judge, device="cpu", root="judge"),
        batches,
        converged=Setting("plms", max(args.steps), scale, seed=0),
        about={"scenes": args.count, "seed": args.seed},
        file=args.out.with_suffix(".json"),
    )
    study.result(study.converged)
    settings = [Setting(sampler, steps, scale, seed=0) for sampler in SAMPLERS for steps in args.steps]
    reference, seeds = Setting("plms", args.reference, scale, seed=0), range(args.repeats)
    standard = [study.result(replace(reference, seed=seed)) for seed in seeds]
    compared = {setting: study.result(setting) for setting in settings}
    choice = cheapest(study, settings, reference, seeds)
    guided = choice or reference
    sweep = {s: study.result(s) for s in (replace(guided, guidance_scale=at) for at in sorted({*args.scales, scale}))}
    plot_samplers(compared, standard, sweep, args.out.with_suffix(".png"))

    print(f"\n{args.count} scenes, guidance {scale:g}")
    print(sampler_table({f"{setting.sampler} {setting.steps}": result for setting, result in compared.items()}))
    print(f"\n{guided.sampler}, {guided.steps} steps")
    print(sampler_table({f"guidance {setting.guidance_scale:g}": result for setting, result in sweep.items()}))
    goal = sum(result.quality for result in standard) / len(standard)
    print(f"\nplms {args.reference}: {100 * goal:.1f} % right, seed noise {100 * seed_noise(standard):.1f} points")
    print(f"the cheapest within seed noise: {choice or 'none'}")
    print(f"{args.out.with_suffix('.json')}, {args.out.with_suffix('.png')}")
