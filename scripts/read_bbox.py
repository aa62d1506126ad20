"""Make the index of the boxes of Open Images that training reads: one pass over the CSV files, no picture is decoded.

python scripts/read_bbox.py --root dataset/open-images
"""

from pathlib import Path

from ldm.utils.cli import Parser, run


def main() -> None:
    parser = Parser("Choose the boxes to train on and write their index: bbox/<split>.arrow. Running it again is safe.")
    parser.add_argument("--root", type=Path, default=Path("dataset/open-images"), help="has images and annotations")
    parser.add_argument("--split", nargs="+", help="train, validation, test; by default all that have annotations")
    parser.add_argument("--classes", nargs="+", default=[], help="keep these only: names ('Coffee cup') or MIDs")
    flags = ("group", "depiction", "occluded")
    parser.add_argument("--exclude", nargs="+", default=[], choices=flags, help="drop boxes that are marked so")
    help = "txt: beside the index also the original's bbox/<folder>/<id>.txt, which takes each picture's size"
    parser.add_argument("--format", default="index", choices=("index", "txt"), help=help)
    args = parser.parse_args()

    from ldm.data.box_index import write_folders
    from ldm.data.open_images_csv import build_index, find_splits, open_source

    splits = args.split or find_splits(args.root)
    sources = [open_source(args.root, split, args.classes, args.exclude) for split in splits]
    for source in sources:
        index = build_index(source)
        about = index.about
        print(
            f"{source.split}: {len(index)} of {about['pictures']} pictures, {about['boxes']} of {about['rows']} boxes"
        )
        for reason, count in about["dropped"].items():
            print(f"  left out: {count} {reason}")
        print(f"  {index.file}; the rows left out: {source.report}")
        if args.format == "txt":
            unreadable = write_folders(index, args.root)
            print(*unreadable, f"{len(index) - len(unreadable)} text files in {args.root / 'bbox'}", sep="\n")
    print(f"Look at what training will see: python scripts/preview.py --root {args.root} --split {splits[0]}")


if __name__ == "__main__":
    run(main)
