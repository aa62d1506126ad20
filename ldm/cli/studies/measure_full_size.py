"""Measure time and memory of one command (Linux).

ldm measure-full-size diffedit --config sd_v1 --ckpt model.ckpt --image A.png --prompt "a cat"
"""

import argparse
import statistics
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from ldm.utils.cli import Parser
from ldm.utils.memory import PeakMemory, anonymous

REST = "everything else"


def main() -> None:
    parser = Parser("Measure the time and memory of an edit or a picture from a prompt. Linux only.")
    add = parser.add_argument
    add("--report", type=Path, default=Path("outputs/measure_full_size.json"), help="file to write the figures to")
    add("verb", choices=("edit", "diffedit", "txt2img"), help="the command of ldm")
    add("flags", nargs=argparse.REMAINDER, metavar="...", help="its own flags")
    args = parser.parse_args()
    anonymous()  # refused where it cannot be read

    process = get_context("spawn")
    receiver, sender = process.Pipe(duplex=False)
    began = time.perf_counter()
    child = process.Process(target=measure, args=(args.verb, args.flags, sender))
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

    report = {"command": args.verb, "flags": args.flags, "command seconds": seconds, **report}
    print(table(report))

    from ldm.utils.files import write_json

    write_json(args.report, report)
    print(args.report)


def measure(verb: str, flags: list[str], sender: Connection) -> None:
    """Run the command in this fresh process and send what it took. Memory counts from after a bare `import torch`."""
    import torch

    memory, figures, calls = PeakMemory(phase=REST), {}, {}

    from ldm.__main__ import main as ldm
    from ldm.checkpoints import open as models

    load = models.load

    def measured_load(*given: object, **options: object) -> torch.nn.Module:
        memory.enter("loading")
        began = time.perf_counter()
        model = load(*given, **options)
        calls["loading"] = [time.perf_counter() - began]
        memory.enter(REST)
        size = sum(tensor.numel() for tensor in model.state_dict().values())
        device = next(model.parameters()).device
        figures.update({"parameters": size, "precision": models.precision_of(model), "device": str(device)})
        parts = {
            "conditioner": model.conditioner,
            "encoder": model.autoencoder.encoder,
            "UNet": model.unet,
            "decoder": model.autoencoder.decoder,
        }
        for name, part in parts.items():
            measure_calls(name, part, device, memory, calls)
        return model

    models.load = measured_load
    sys.argv = ["ldm", verb, *flags]
    ldm()
    figures["threads"], figures["torch"] = torch.get_num_threads(), torch.__version__
    figures["import torch bytes"], figures["peak bytes beyond"] = memory.start, memory.peak - memory.start
    figures["peak over bf16 weights"] = figures["peak bytes beyond"] / (2 * figures["parameters"])
    figures["phases"] = {
        name: {
            "calls": len(calls.get(name, [])),
            "seconds per call": statistics.median(calls.get(name, [0])),
            "seconds": sum(calls.get(name, [])),
            "peak bytes beyond": peak - memory.start,
        }
        for name, peak in memory.peaks.items()
    }
    sender.send(figures)


def measure_calls(name, network, device, memory: PeakMemory, calls: dict[str, list[float]]) -> None:
    """Let each call of a network count for the phase "NAME, ROWS at once", and append its seconds to `calls` there."""
    import torch

    outer = []

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def before(_, given) -> None:
        phase = f"{name}, {len(given[0])} at once"
        outer.append(memory.enter(phase))
        calls.setdefault(phase, []).append(-now())

    def after(*_) -> None:
        calls[memory.phase][-1] += now()
        memory.enter(outer.pop())

    network.register_forward_pre_hook(before)
    network.register_forward_hook(after)


def table(report: dict) -> str:
    gigabyte = 1e9
    rows = [
        f"{name:24} {phase['calls']:5} {phase['seconds per call']:10.2f} {phase['seconds']:8.1f} "
        f"{phase['peak bytes beyond'] / gigabyte:8.3f}"
        for name, phase in report["phases"].items()
    ]
    return "\n".join(
        [
            f"{'':24} calls seconds/call  seconds  peak GB",
            *rows,
            f"whole command: {report['command seconds']:.1f} s",
            f"peak anonymous memory: {report['peak bytes beyond'] / gigabyte:.3f} GB beyond `import torch`, "
            f"{report['peak over bf16 weights']:.2f} times the bf16 weights of "
            f"{2 * report['parameters'] / gigabyte:.3f} GB",
            f"{report['precision']}, {report['device']}, {report['threads']} threads, torch {report['torch']}",
        ]
    )
