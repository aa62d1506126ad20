"""Pass training items through the frozen networks once: `python scripts/cache_latents.py --base CONFIG --out FOLDER`."""

from pathlib import Path

from ldm.utils.cli import Parser, run


def main() -> None:
    parser = Parser("Write a latent cache of the `source` data of a training config. Shards already there are kept.")
    parser.add_argument("-b", "--base", nargs="+", required=True, help="the training config, which names model and source")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards")
    parser.add_argument("--epochs", type=int, default=1, help="draw each item of the source so many times")
    parser.add_argument("--shard", type=int, default=2000, help="items per file")
    parser.add_argument("--part", default="0/1", help="k/n: write only every n-th shard, starting with the k-th")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config values")
    options = parser.parse_args()

    from ldm.config import load_config
    from ldm.training.latent_cache import write_cache

    config = load_config(*options.base, overrides=options.overrides)
    part, parts = (int(x) for x in options.part.split("/"))
    write_cache(config, options.out, options.epochs, options.shard, part, parts)


if __name__ == "__main__":
    run(main)
