"""List your own pictures to train on: from COCO annotations, or pictures with masks."""

from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError, reason

SHOWN = 3  # names of what is left out


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--coco", type=Path, help="COCO instances file: its boxes say what is repainted")
    parser.add_argument(
        "--masks", type=Path, help="folder of masks, white = repaint, named like the pictures, with or without _mask "
        "(default: --images, where the masks end in _mask)",
    )  # fmt: skip
    parser.add_argument("--exemplars", type=Path, help="folder of exemplars, named like the pictures (masks only)")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write, .jsonl or .parquet")
    parser.add_argument("--preview", type=Path, metavar="FILE", help="write a contact sheet of what training will see")
    parser.add_argument("--count", type=int, default=8, help="number of items in the contact sheet")
    options = parser.parse_args()
    if options.coco and (options.masks or options.exemplars):
        raise UserError("--coco: says itself what is repainted; leave out --masks and --exemplars")
    if options.out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"--out {options.out}: expected a name that ends in .jsonl or .parquet")

    from ldm.data.manifest import ManifestDataset, write_manifest
    from ldm.data.manifest_convert import from_coco, from_folders
    from ldm.data.preview import write_sheet
    from ldm.data.recipe import Recipe

    folder = options.out.parent
    if options.coco:
        rows, dropped = from_coco(options.coco, options.images, folder)
    else:
        rows, dropped = from_folders(options.images, options.masks or options.images, options.exemplars, folder)
    report = "".join(
        f"\n  left out: {len(names)} {reason} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        for reason, names in sorted(dropped.items(), key=lambda item: -len(item[1]))
    )
    if not rows:
        raise UserError(f"{options.images}: nothing to train on" + report.replace("\n  ", "; "))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {options.out}: cannot write there ({reason(error)})") from error
    write_manifest(options.out, rows)
    print(f"{options.out}: {len(rows)} rows{report}")
    if options.preview:
        write_sheet(ManifestDataset(str(options.out), Recipe()), options.preview, options.count)
        print(f"{options.preview}: what training would see at {Recipe().size} pixels")
