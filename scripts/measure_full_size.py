"""Measure one edit as a user makes it, time and memory, from the start of Python to the saved picture (Linux).

python scripts/measure_full_size.py --config v1 --ckpt model.ckpt \
    --image_path A.png --mask_path B.png --reference_path C.jpg
"""

import json
import runpy
import statistics
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from ldm.utils.cli import Parser, run
from ldm.utils.memory import PeakMemory, anonymous

INFERENCE = Path(__file__).resolve().with_name("inference.py")


def main() -> None:
    parser = Parser("Measure the time and memory of scripts/inference.py on one edit. Linux only.")
    parser.add_argument("--config", default="v1", help="a config file, or a name in configs/")
    parser.add_argument("--ckpt", nargs="+", help="the weights, if not those that the config names")
    for name in ("image_path", "mask_path", "reference_path"):
        parser.add_argument(f"--{name}", required=True, help="as in inference.py")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps")
    parser.add_argument("--size", type=int, default=512, help="the scene is resized to this height and width")
    parser.add_argument("--precision", default="auto", help="as in inference.py")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=Path, default=Path("outputs/measure_full_size"), help="folder of report and edit")
    args = parser.parse_args()
    anonymous()  # refused where it cannot be read

    same = ("config", "image_path", "mask_path", "reference_path", "steps", "precision", "device")
    flags = [text for name in same for text in (f"--{name}", str(getattr(args, name)))]
    flags += ["--H", str(args.size), "--W", str(args.size), "--outdir", str(args.out)]
    flags += ["--ckpt", *args.ckpt] if args.ckpt else []

    process = get_context("spawn")
    receiver, sender = process.Pipe(duplex=False)
    began = time.perf_counter()
    child = process.Process(target=edit, args=(flags, sender))
    child.start()
    sender.close()  # so that the child's end is the only one, and its death is seen
    try:
        report = receiver.recv()
    except EOFError:
        report = None
    child.join()
    seconds = time.perf_counter() - began
    if report is None or child.exitcode:
        sys.exit(child.exitcode or 1)  # the child has said why

    report = {"flags": flags, "command seconds": seconds, **report}
    print(table(report))

    from ldm.utils.files import replacing

    with replacing(args.out / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(args.out / "report.json")


def edit(flags: list[str], sender: Connection) -> None:
    """Run inference.py in this fresh process and send what it took. Memory counts from after a bare `import torch`."""
    import torch

    memory, figures, calls = PeakMemory(), {}, []

    from ldm.runs import model as models

    open_model = models.open_model

    def timed_open_model(*given: object) -> tuple[torch.nn.Module, str]:
        began = time.perf_counter()
        model, precision = open_model(*given)
        figures["load seconds"] = time.perf_counter() - began
        size = sum(tensor.numel() for tensor in model.state_dict().values())
        device = next(model.parameters()).device
        figures.update({"parameters": size, "precision": precision, "device": str(device)})
        time_calls(model.unet, device, calls)
        return model, precision

    models.open_model = timed_open_model
    sys.argv = [str(INFERENCE), *flags]
    runpy.run_path(str(INFERENCE), run_name="__main__")
    figures["threads"], figures["torch"] = torch.get_num_threads(), torch.__version__
    figures["network calls"], figures["seconds per network call"] = len(calls), statistics.median(calls)
    figures["import torch bytes"], figures["peak bytes beyond"] = memory.start, memory.peak - memory.start
    figures["peak over bf16 weights"] = figures["peak bytes beyond"] / (2 * figures["parameters"])
    sender.send(figures)


def time_calls(network, device, calls: list[float]) -> None:
    """Append the seconds that each call of the network takes to `calls`."""
    import torch

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def before(*_) -> None:
        calls.append(-now())

    def after(*_) -> None:
        calls[-1] += now()

    network.register_forward_pre_hook(before)
    network.register_forward_hook(after)


def table(report: dict) -> str:
    gigabyte = 1e9
    return "\n".join(
        [
            f"whole command          {report['command seconds']:9.2f} s",
            f"loading the model      {report['load seconds']:9.2f} s",
            f"one network call       {report['seconds per network call']:9.3f} s (median of {report['network calls']})",
            f"bf16 weights           {2 * report['parameters'] / gigabyte:9.3f} GB",
            f"peak anonymous memory  {report['peak bytes beyond'] / gigabyte:9.3f} GB beyond `import torch`: "
            f"{report['peak over bf16 weights']:.2f} times the bf16 weights",
            f"{report['precision']}, {report['device']}, {report['threads']} threads, torch {report['torch']}",
        ]
    )


if __name__ == "__main__":
    run(main)
