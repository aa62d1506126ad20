"""Write a contact sheet of what a training config trains on."""

from pathlib import Path

from ldm.utils.cli import Parser, sort_overrides


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("-b", "--base", nargs="+", required=True, help="the training config")
    parser.add_argument("--count", type=int, default=8, help="number of items")
    parser.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config values")
    options = parser.parse_args()
    files, overrides = sort_overrides(options.base, options.overrides)

    from ldm.compat.configs import load_config
    from ldm.config import build
    from ldm.data.preview import write_sheet
    from ldm.utils.errors import UserError

    config = load_config(*files, overrides=overrides)
    node = config.get("source") or config.get("data", {}).get("params", {}).get("train")
    if node is None:
        raise UserError(f"--base {' '.join(files)}: no data.params.train in it, so nothing to show")
    for number, words in enumerate(write_sheet(build(node), options.out, options.count), 1):
        print(f"row {number}: {words}")
    print(options.out)
