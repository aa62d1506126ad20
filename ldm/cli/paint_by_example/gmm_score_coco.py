"""Measure the Quality Score of a folder of generated pictures.

ldm gmm-score-coco results/test_bench/results --gmm_path coco2017_gmm_k20 --gpu 1
"""

import argparse
import math
from pathlib import Path

from ldm.utils.cli import CLIP_KINDS, Parser, add_feature_flags


def parse_args() -> argparse.Namespace:
    parser = Parser("Quality Score of a folder of generated pictures, by a GMM fitted to CLIP features of real ones.")
    add = parser.add_argument
    add("generated", type=Path, help="a folder of generated pictures, all of one size")
    add("--gmm_path", type=Path, required=True, help="the published pickle, or what ldm fit-gmm wrote")
    add("--scale", type=float, default=300.0, help="the log-likelihood that scores 100")
    add("--gpu", metavar="N", help="the same as --device cuda:N")
    add("--id_list", type=Path, metavar="NPY", help="the ids of the pictures in `generated`, which must be complete")
    add_feature_flags(parser, CLIP_KINDS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from ldm.benchmark.layout import listed_results
    from ldm.evaluation.bootstrap import mean_estimate
    from ldm.evaluation.extractors import open_extractor
    from ldm.evaluation.feature_cache import FeatureCache, features_of
    from ldm.evaluation.quality_score import open_gmm, quality_score
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError

    if not 0 < args.scale < math.inf:
        raise UserError(f"--scale {args.scale:g}: expected a number above 0")
    files = listed_results(args.generated, args.id_list)
    device = choose_device(args.device if args.gpu is None else f"cuda:{args.gpu}")
    extractor = open_extractor(args.extractor, args.weights, device)
    gmm = open_gmm(args.gmm_path, extractor)
    likelihood = gmm.log_likelihood(features_of(extractor, files, FeatureCache(args.cache), args.batch))
    estimate = mean_estimate(quality_score(likelihood, args.scale))
    print(f"Quality Score: {estimate:.2f} ({len(files)} pictures; 95 % interval)")
    print(f"log-likelihood: {mean_estimate(likelihood):.1f}; {args.scale:g} scores 100")
    print("features:", "; ".join(extractor.about.values()))
