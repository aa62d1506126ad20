"""Measure the CLIP score of a test bench's results.

ldm region-clip-score --result_dir results/test_bench/results
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, add_feature_flags


def parse_args() -> argparse.Namespace:
    parser = Parser("CLIP score of a test bench: similarity of each edited box and its exemplar to CLIP ViT-B/32.")
    add = parser.add_argument
    add("--result_dir", type=Path, required=True, help="the results, <id>.png")
    add("--test_bench", type=Path, default=Path("test_bench"), help="GT_3500, Mask_bbox_3500, Ref_3500, id_list.npy")
    add("--crop", choices=("original", "exact"), default="original", help="how the box is cropped: as in the original, "
        "which drops a row and a column and scales without antialiasing, or exactly")  # fmt: skip
    add_feature_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from ldm.benchmark.layout import read_test_bench, result_files
    from ldm.evaluation.bootstrap import mean_estimate
    from ldm.evaluation.clip_score import RegionCrop, cosine_score, whole
    from ldm.evaluation.extractors import open_extractor
    from ldm.evaluation.feature_cache import FeatureCache, features_of
    from ldm.utils.device import choose_device
    from ldm.utils.errors import report_failures

    items, wrong = read_test_bench(args.test_bench)
    results = result_files(args.result_dir, [item.id for item in items])
    crops = [RegionCrop(item.box, args.crop) for item in items]
    extractor = open_extractor("clip_vit_b32", args.weights, choose_device(args.device))
    cache = FeatureCache(args.cache)
    edited = features_of(extractor, results, cache, args.batch, crops, desc="edited boxes")
    exemplars = features_of(extractor, [item.exemplar for item in items], cache, args.batch, whole, desc="exemplars")
    estimate = mean_estimate(cosine_score(edited, exemplars))
    print(f"CLIP score: {estimate:.2f} ({len(items)} boxes, {args.crop} crop; 95 % interval)")
    print(f"features: {extractor.name}; {extractor.weights}")
    report_failures(wrong, f"of {len(items) + len(wrong)} items")
