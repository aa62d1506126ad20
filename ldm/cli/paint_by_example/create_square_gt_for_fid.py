"""Make the real pictures that FID is measured against, from COCO's test2017.

ldm create-square-gt-for-fid --data dataset/coco/test2017 --out test_bench/test_set_GT

Existing pictures are kept. Exit code 4: some pictures could not be read.
"""

import argparse
from pathlib import Path

from ldm.utils.cli import Parser, positive


def parse_args() -> argparse.Namespace:
    parser = Parser("Make the real pictures that FID is measured against: squares of COCO's test2017.")
    add = parser.add_argument
    add("--data", type=Path, default=Path("dataset/coco/test2017"), help="a folder of pictures, searched recursively")
    add(
        "--outdir",
        "--out",
        dest="out",
        type=Path,
        default=Path("test_bench/test_set_GT"),
        help="folder for the squares, <name>.png",
    )
    add("--size", type=positive, default=512, help="side of the squares; the short side is scaled to it (bilinear)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    from collections import Counter
    from concurrent.futures import ThreadPoolExecutor

    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as TF
    from tqdm import tqdm

    from ldm.data.images import picture_files
    from ldm.runs.outputs import check_writable
    from ldm.utils.errors import UserError, report_failures
    from ldm.utils.image import open_image
    from ldm.utils.png import save_png

    def make(file: Path) -> str | None:
        """Write a picture's square, or return the error message."""
        try:
            picture = open_image(file).convert("RGB")
        except UserError as error:
            return str(error)
        scaled = TF.resize(picture, args.size, InterpolationMode.BILINEAR)
        save_png(TF.center_crop(scaled, args.size), args.out / f"{file.stem}.png")
        return None

    files = picture_files(args.data)
    if twice := [stem for stem, count in Counter(file.stem for file in files).items() if count > 1]:
        raise UserError(f"--data {args.data}: {len(twice)} names occur twice, the first is {twice[0]}")
    check_writable(args.out)
    todo = [file for file in files if not (args.out / f"{file.stem}.png").exists()]
    with ThreadPoolExecutor() as pool, tqdm(total=len(files), initial=len(files) - len(todo), disable=None) as bar:
        problems = []
        for problem in pool.map(make, todo):
            problems += [problem] if problem else []
            bar.update()
    print(f"{args.out}: {len(files) - len(problems)} pictures, {args.size}x{args.size}")
    report_failures(problems, f"of {len(files)} pictures")
