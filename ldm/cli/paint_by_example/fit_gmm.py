"""Fit the mixture of Gaussians of the Quality Score to a folder of real pictures.

ldm fit-gmm dataset/coco/train2017 --out pretrained_models/gmm.safetensors
"""

import argparse
from pathlib import Path

from ldm.utils.cli import CLIP_KINDS, Parser, add_feature_flags, positive


def parse_args() -> argparse.Namespace:
    parser = Parser("Fit the mixture of Gaussians of the Quality Score to CLIP's features of real pictures.")
    add = parser.add_argument
    add("real", type=Path, help="a folder of real pictures, searched recursively")
    add("--out", type=Path, required=True, metavar="FILE", help="a .safetensors file")
    add("--k", type=positive, default=20, help="number of Gaussians")
    add("--seed", type=int, default=0, help="of the k-means that initialises the fit")
    add("--singular", action="store_true", help="allow fewer pictures than k times the features; densities of other "
        "pictures then mean little")  # fmt: skip
    add_feature_flags(parser, CLIP_KINDS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from ldm.data.images import picture_files
    from ldm.evaluation.bootstrap import mean_estimate
    from ldm.evaluation.extractors import open_extractor
    from ldm.evaluation.feature_cache import FeatureCache, features_of
    from ldm.evaluation.quality_score import fit_gmm, save_gmm
    from ldm.runs.outputs import check_writable
    from ldm.utils.device import choose_device
    from ldm.utils.errors import UserError
    from ldm.utils.extras import require

    require("sklearn")
    if args.out.suffix != ".safetensors" or args.out.is_dir():
        raise UserError(f"--out {args.out}: expected the name of a .safetensors file")
    check_writable(args.out.parent)
    files = picture_files(args.real)
    extractor = open_extractor(args.extractor, args.weights, choose_device(args.device))
    features = features_of(extractor, files, FeatureCache(args.cache), args.batch, desc=str(args.real))
    print(f"fitting {args.k} Gaussians to {features.shape[1]} features of {len(features)} pictures")
    gmm = fit_gmm(features, args.k, args.seed, singular=args.singular)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_gmm(args.out, gmm, extractor, {"pictures": str(len(files)), "seed": str(args.seed)})
    likelihood = mean_estimate(gmm.log_likelihood(features))
    print(f"{args.out}: the mean log-likelihood of the pictures is {likelihood:.1f}")
    print("features:", "; ".join(extractor.about.values()))
