"""Draw ToyWorld: small scenes with boxes, captions and attributes."""

from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "--outdir", "--out", dest="out", type=Path, default=Path("dataset/toyworld"), help="folder to write"
    )
    parser.add_argument("--train", type=int, default=24000, help="number of training scenes")
    parser.add_argument("--validation", type=int, default=500, help="number of validation scenes")
    parser.add_argument("--test", type=int, default=500, help="number of test scenes")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes")
    parser.add_argument("--workers", type=int, default=None, help="processes; by default one per core")
    args = parser.parse_args()
    for name in ("train", "validation", "test", "size", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expected a positive number")

    from ldm.toyworld.files import write_split

    for split in ("train", "validation", "test"):
        count = getattr(args, split)
        if not write_split(args.out, split, count, args.seed, args.size, args.workers):
            print(f"{args.out}: {split} is complete already, {count} scenes")
