"""Index the boxes of Open Images, or of photos laid out alike, for training.

One pass over the CSV files; no picture is decoded.

ldm read-bbox --root dataset/open-images
"""

from pathlib import Path

from ldm.utils.cli import Parser

PREVIEW = "ldm preview --base configs/v1.yaml dataset={root}"
SHOWN = 5  # pictures that cannot be read and are named one by one


def main() -> None:
    parser = Parser("Choose the boxes to train on and write their index: bbox/<split>.arrow. Running it again is safe.")
    parser.add_argument("--root", type=Path, default=Path("dataset/open-images"), help="has images and annotations")
    parser.add_argument("--split", nargs="+", help="train, validation, test; by default all that have annotations")
    parser.add_argument("--classes", nargs="+", default=[], help="keep these only: names ('Coffee cup') or MIDs")
    flags = ("group", "depiction", "occluded")
    parser.add_argument("--exclude", nargs="+", default=[], choices=flags, help="drop boxes that are marked so")
    help = "txt: beside the index also the original's bbox/<folder>/<id>.txt, which takes each picture's size"
    parser.add_argument("--format", default="index", choices=("index", "txt"), help=help)
    help = "write a contact sheet of what training will see of the train split (or of the first)"
    parser.add_argument("--preview", type=Path, metavar="FILE", help=help)
    args = parser.parse_args()

    from ldm.data.box_index import write_folders
    from ldm.data.open_images_csv import build_index, find_splits, open_source

    splits = args.split or find_splits(args.root)
    sources = [open_source(args.root, split, args.classes, args.exclude) for split in splits]
    for source in sources:
        index = build_index(source)
        about = index.about
        boxes, pictures = f"{about['boxes']} of {about['rows']} boxes", f"{len(index)} of {about['pictures']} pictures"
        print(f"{source.split}: {boxes}, {pictures}")
        for reason, count in about["dropped"].items():
            print(f"  left out: {count} {reason}")
        print(f"  {index.file}; the rows left out: {source.report}")
        if args.format == "txt":
            unreadable = write_folders(index, args.root)
            for message in unreadable[:SHOWN]:
                print(f"  {message}")
            if len(unreadable) > SHOWN:
                print(f"  and {len(unreadable) - SHOWN} pictures more that cannot be read")
            print(f"  {len(index) - len(unreadable)} text files in {args.root / 'bbox'}")
    if args.preview:
        from ldm.data.open_images import OpenImagesDataset
        from ldm.data.preview import write_sheet
        from ldm.data.recipe import Recipe

        split = "train" if "train" in splits else splits[0]
        write_sheet(OpenImagesDataset(str(args.root), split, Recipe()), args.preview)
        print(f"{args.preview}: what training would see at {Recipe().size} pixels")
    else:
        print("Look at what training will see:", PREVIEW.format(root=args.root))
