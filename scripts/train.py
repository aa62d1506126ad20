"""Train a network from a config file: `python scripts/train.py --base configs/train/toyworld_clip.yaml`."""

from pathlib import Path

from ldm.utils.cli import Parser, run, sort_overrides


def main() -> None:
    parser = Parser("Train what a config file describes. Ends with weights.safetensors in --logdir.")
    parser.add_argument("-b", "--base", nargs="+", required=True, help="config files, later ones over earlier ones")
    parser.add_argument("-l", "--logdir", type=Path, help="where the run is written (default: logs/<name of --base>)")
    parser.add_argument(
        "-r", "--resume", action="store_true", help="go on from the last checkpoint in --logdir, if any"
    )
    parser.add_argument("--pretrained_model", type=Path, help="start from these weights, e.g. sd-v1-4.ckpt")
    parser.add_argument("--clip", type=Path, help="CLIP's image tower, which SD v1-4 does not hold")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="override config values, e.g. trainer.max_steps=100"
    )
    options = parser.parse_args()
    files, overrides = sort_overrides(options.base, options.overrides)

    from ldm.config import load_config
    from ldm.training.fit import fit

    config = load_config(*files, overrides=overrides)
    logdir = options.logdir or Path("logs") / Path(files[-1]).stem
    print(f"weights written to {fit(config, logdir, options.resume, options.pretrained_model, options.clip)}")


if __name__ == "__main__":
    run(main)
