"""Extend a Stable Diffusion checkpoint to more input channels."""

from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.errors import UserError


def main() -> None:
    parser = Parser(
        "Give the UNet of a Stable Diffusion checkpoint more input channels with weights of 0: it computes what it did "
        "before until it is trained. Everything else stays bit-identical."
    )
    parser.add_argument("--in_path", type=Path, default=Path("pretrained_models/sd-v1-4.ckpt"), help="file to read")
    parser.add_argument(
        "--out_path",
        type=Path,
        default=Path("pretrained_models/sd-v1-4-modified-9channel.ckpt"),
        help="file to write, .ckpt or .safetensors",
    )
    parser.add_argument("--in_channels", type=int, default=9, help="input channels of the UNet afterwards")
    options = parser.parse_args()
    if options.in_channels < 1:
        raise UserError(f"--in_channels {options.in_channels}: expected a positive number")

    from ldm.checkpoints.io import read_tensors, save_checkpoint
    from ldm.checkpoints.surgery import expand_in_channels, prefer_ema

    source = str(options.in_path)
    tensors, averages = prefer_ema(read_tensors(options.in_path), source)
    tensors = expand_in_channels(tensors, options.in_channels, source)
    if averages:
        print(f"{source}: uses its {averages} moving averages (model_ema.*), not the raw weights")
    save_checkpoint(options.out_path, tensors)
    print(f"{options.out_path}: written, {options.in_channels} input channels")
