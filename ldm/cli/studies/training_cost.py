"""Estimate what a training costs: arithmetic, GPU-hours, memory.

The numbers are counted from the network's shapes, not measured on a GPU.

ldm training-cost --base configs/v1.yaml
"""

from ldm.utils.cli import Parser, sort_overrides
from ldm.utils.errors import UserError

BATCHES = (1, 4, 16)
CHECKPOINTING = "model.params.unet.params.use_checkpoint"


def main() -> None:
    parser = Parser("Estimate what a training costs before renting a GPU. No data, weights or GPU are needed.")
    parser.add_argument("-b", "--base", nargs="+", required=True, help="the training config")
    parser.add_argument("--tflops", type=float, default=790, help="peak of one GPU; 790 is an H200 with dense bf16")
    parser.add_argument("--mfu", type=float, default=0.4, help="the share of that peak that is reached")
    parser.add_argument("--table", action="store_true", help="memory for other batches, with and without checkpointing")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config values")
    options = parser.parse_args()
    files, overrides = sort_overrides(options.base, options.overrides)
    if not options.tflops > 0:
        raise UserError(f"--tflops {options.tflops}: expected a positive number")
    if not 0 < options.mfu <= 1:
        raise UserError(f"--mfu {options.mfu}: expected a share above 0 and at most 1")

    from ldm.checkpoints.load import build_empty
    from ldm.compat.configs import load_config
    from ldm.training.cost import step_cost
    from ldm.training.loop.average import Averages
    from ldm.training.loop.budget import budget
    from ldm.utils.sizes import size

    config = load_config(*files, overrides=overrides)
    if "training" not in config:
        raise UserError(f"--base {' '.join(files)}: has no `training`, so there is nothing to count")
    mixed = "mixed" in str(config.trainer.get("precision", "32-true"))
    n = config.data.params.get("batch_per_device") or config.data.params.batch_size
    training = build_empty(config.training)
    kept = budget(training, Averages(config.ema)).memory
    trained = sum(p.numel() for p in training.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in training.parameters()) - trained
    step = step_cost(training, n, mixed)

    samples = config.trainer.max_steps * config.data.params.batch_size
    flops = step.flops / n
    hours = flops * samples / (options.tflops * 1e12 * options.mfu) / 3600
    print("counted from the network's shapes, not measured on a GPU")
    print(f"parameters    {trained / 1e6:.1f} M trained, {frozen / 1e6:.1f} M frozen")
    for name, count in step.forward.items():
        print(f"forward pass  {count / n / 1e9:.1f} GFLOP a sample: {name}")
    print(f"training      {flops / 1e12:.3g} TFLOP a sample, forward, backward and recomputation")
    print(f"GPU-hours     {hours:,.1f} for {samples:,} samples at {options.mfu:g} of {options.tflops:g} TFLOP/s")
    print(f"memory        {size(kept)} weights, gradients, AdamW{', averages' if config.ema else ''}")
    print(f"              {size(step.activations)} activations of {n} a device, {size(step.saved)} of it saved")
    print(f"              {size(peak(kept, step.activations, trained))} together, at the peak of a step")
    if options.table:
        print("memory per device by batch, without and with activation checkpointing")
        for batch in BATCHES:
            row = []
            for checkpointing in ("false", "true"):
                other = build_empty(
                    load_config(*files, overrides=[*overrides, f"{CHECKPOINTING}={checkpointing}"]).training
                )
                row.append(size(peak(kept, step_cost(other, batch, mixed).activations, trained)))
            print(f"{batch:>12}  {row[0]:>9} {row[1]:>9}")


def peak(kept: int, activations: int, trained: int) -> int:
    """Return the peak bytes: of a backward pass, or of AdamW's update, which needs 4 more per trained parameter."""
    return kept + max(activations, 4 * trained)
