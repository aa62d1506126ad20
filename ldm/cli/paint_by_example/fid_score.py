"""Measure the Fréchet distance between two folders of pictures.

ldm fid-score --device cuda test_bench/test_set_GT results/test_bench/results

By default it uses features of CLIP ViT-B/32, which Paint by Example calls FID. With --inception it is FID proper.
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, add_feature_flags, note_unused, positive

NAMES = {"clip_vit_b32": "CLIP-FID", "inception": "FID", "toyworld_clip": "ToyWorld CLIP-FID"}  # of the distance


def parse_args() -> argparse.Namespace:
    parser = Parser("Fréchet distance between two folders of pictures, on CLIP's features (Paint by Example's FID).")
    add = parser.add_argument
    add("real", type=Path, help="a folder of real pictures, searched recursively")
    add("generated", type=Path, help="a folder of generated pictures, all of one size")
    add("--inception", dest="extractor", action="store_const", const="inception", default=argparse.SUPPRESS,
        help="the same as --extractor inception: FID proper, which Paint by Example does not report")  # fmt: skip
    add("--id_list", type=Path, metavar="NPY", help="the ids of the pictures in `generated`, which must be complete")
    add("--singular", action="store_true", help="allow fewer pictures than features, with a singular covariance")
    add("--resamples", type=positive, default=200, help="of the bootstrap, for the interval")
    for name in ("--dims", "--num-workers"):
        add(name, type=int, default=argparse.SUPPRESS, help="accepted for the original's sake")
    add_feature_flags(parser, tuple(NAMES))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    note_unused(f"--{name.replace('_', '-')}" for name in ("dims", "num_workers") if name in args)

    from ldm.benchmark.layout import listed_results
    from ldm.data.images import picture_files
    from ldm.evaluation.extractors import open_extractor
    from ldm.evaluation.feature_cache import FeatureCache, features_of
    from ldm.evaluation.frechet import check_count, frechet_estimate
    from ldm.utils.device import choose_device

    generated, real = listed_results(args.generated, args.id_list), picture_files(args.real)
    extractor = open_extractor(args.extractor, args.weights, choose_device(args.device))
    features = []
    for folder, files in ((args.generated, generated), (args.real, real)):  # usually the smaller one first
        features.append(features_of(extractor, files, FeatureCache(args.cache), args.batch, desc=str(folder)))
        check_count(features[-1], str(folder), args.singular)
    estimate = frechet_estimate(*features, resamples=args.resamples, singular=args.singular)
    counts = f"{len(generated)} pictures against {len(real)} real ones"
    print(f"{NAMES[args.extractor]}: {estimate:.4f} ({counts}; 95 % interval)")
    print("features:", "; ".join(extractor.about.values()))
