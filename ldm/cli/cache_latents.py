"""Pass training items through the frozen networks once."""

from pathlib import Path

from ldm.utils.cli import Parser, sort_overrides
from ldm.utils.errors import UserError


def main() -> None:
    parser = Parser(
        "Write the latent cache that a training config reads, from its `source`. Shards already there are kept."
    )
    parser.add_argument("-b", "--base", nargs="+", required=True, help="the training config")
    parser.add_argument("--epochs", type=int, default=3, help="how often each item of the source is drawn")
    parser.add_argument("--shard", type=int, default=2000, help="items per file")
    parser.add_argument("--part", default="0/1", help="k/n: write every n-th shard from the k-th, to share the work")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config values")
    options = parser.parse_args()
    files, overrides = sort_overrides(options.base, options.overrides)
    k, slash, n = options.part.partition("/")
    if not (slash and k.isdigit() and n.isdigit() and int(k) < int(n)):
        raise UserError(f"--part {options.part}: expected k/n with 0 <= k < n")
    for name in ("epochs", "shard"):
        if (value := getattr(options, name)) < 1:
            raise UserError(f"--{name} {value}: expected a positive number")

    from omegaconf import OmegaConf

    from ldm.compat.configs import load_config
    from ldm.training.latent_cache import write_cache

    config = load_config(*files, overrides=overrides)
    folder = OmegaConf.select(config, "data.params.train.params.folder")
    if folder is None or config.get("source") is None:
        raise UserError(f"--base {' '.join(files)}: no `source` to read or no data.params.train.params.folder to fill")
    write_cache(config, Path(folder), options.epochs, options.shard, (int(k), int(n)))
