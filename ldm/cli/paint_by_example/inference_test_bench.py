r"""Edit a test bench in the layout of COCOEE.

Flags and the output folder are those of Paint by Example's script.

ldm inference-test-bench --plms --outdir results/test_bench --config configs/v1.yaml \
    --ckpt pretrained_models/model.ckpt --scale 5

Repeating the command continues where it stopped. ldm benchmark --config benchmark/cocoee does the same, measures
the results and reports them beside the paper's.
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, add_model_flags, add_sampler_flags, note_unused, positive, report_jobs

IGNORED = ("n_imgs", "n_rows", "n_iter", "C", "f", "H", "W")


def parse_args() -> argparse.Namespace:
    parser = Parser("Edit all items of a test bench, by Paint by Example's conventions unless --edit says otherwise.")
    only_if_given = {"argument_default": argparse.SUPPRESS}

    add = parser.add_argument_group("items and output").add_argument
    add("--test_bench", type=Path, default=Path("test_bench"), metavar="DIR",
        help="GT_3500, Mask_bbox_3500, Ref_3500 and id_list.npy")  # fmt: skip
    add("--outdir", type=Path, default=Path("results/test_bench"), help="gets results/<id>.png")
    add("--limit", type=positive, metavar="N", help="only the first N items")

    add_model_flags(parser, config="v1")

    about = "Flags not given here are as in --edit. Item k has the seed plus k."
    group = parser.add_argument_group("edit", about, **only_if_given)
    add = group.add_argument
    add("--edit", default="original", help="original, default (ours) or your own YAML file")
    add_sampler_flags(group)
    add("--n_samples", "--batch", dest="batch", type=positive, default=5, help="number of items in a batch")
    add("--skip_grid", action="store_true", help=argparse.SUPPRESS)  # no grid is drawn anyway
    for name in IGNORED:
        add(f"--{name}", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    given = vars(args)

    from ldm.benchmark.cocoee import as_jobs
    from ldm.benchmark.layout import read_test_bench
    from ldm.checkpoints.open import load, precision_of
    from ldm.cli.weights import choose_config
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.presets import EditSettings
    from ldm.runs.job_edits import ExemplarJobs
    from ldm.runs.outputs import check_writable
    from ldm.runs.work import editor_about, run_jobs
    from ldm.utils.device import choose_device
    from ldm.utils.processes import this_share

    choose_config(given)
    note_unused(f"--{name}" for name in IGNORED if name in given)
    settings = EditSettings.read(args.edit, **EditSettings.among(given))
    items, wrong = read_test_bench(args.test_bench)
    jobs = as_jobs(items, settings.seed)[: args.limit]
    check_writable(args.outdir)

    share = this_share()
    device = choose_device(args.device, share.local_rank)
    model = load(args.config, given.get("ckpt"), device, args.precision)
    precision = precision_of(model)
    editor = ExemplarEditor(model, settings)
    about = editor_about(editor, precision)
    outcome = run_jobs(jobs, args.outdir, about, ExemplarJobs(editor), batch=args.batch, share=share)
    if share.rank == 0:
        report_jobs(args.outdir, outcome.made, outcome.there, [*wrong, *outcome.failed])
