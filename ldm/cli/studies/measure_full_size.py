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
from typing import TYPE_CHECKING

from ldm.utils.cli import Parser
from ldm.utils.memory import PeakMemory, anonymous

if TYPE_CHECKING:
    import torch

REST = "everything else"


def main() -> None:
    parser = Parser("Measure the time and memory of an edit or a picture from a prompt. Linux only.")
    add = parser.add_argument
    add("--report", type=Path, default=Path("outputs/measure_full_size.json"), help="file for the results")
    add("verb", choices=("edit", "diffedit", "txt2img"), help="the command of ldm")
    add("flags", nargs=argparse.REMAINDER, metavar="...", help="its own flags")
    args = parser.parse_args()
    anonymous()  # raises where memory cannot be measured

    process = get_context("spawn")
    receiver, sender = process.Pipe(duplex=False)
    began = time.perf_counter()
    child = process.Process(target=measure, args=(args.verb, args.flags, sender))
    child.start()
    sender.close()  # leaves only the child's end, so that its death is noticed
    try:
        report = receiver.recv()
    except EOFError:
        report = None
    child.join()
    seconds = time.perf_counter() - began
    if report is None or child.exitcode:
        sys.exit(child.exitcode or 1)  # the child has reported why

    report = {"command": args.verb, "flags": args.flags, "command seconds": seconds, **report}
    print(table(report))

    from ldm.utils.files import write_json

    write_json(args.report, report)
    print(args.report)


def measure(verb: str, flags: list[str], sender: Connection) -> None:
    """Run the command in this fresh process, and send the measurements; memory counts from after `import torch`."""
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
            CallMeter(name, device, memory, calls).attach(part)
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


class CallMeter:
    """Hooks that assign each call of a network to the phase "NAME, ROWS at once", and record its seconds in `calls`."""

    def __init__(self, name: str, device: "torch.device", memory: PeakMemory, calls: dict[str, list[float]]):
        self.name, self.device, self.memory, self.calls = name, device, memory, calls
        self._outer: list[str] = []  # phases that the calls under way have interrupted

    def attach(self, network: "torch.nn.Module") -> None:
        """Measure all further calls of a network."""
        network.register_forward_pre_hook(self._before)
        network.register_forward_hook(self._after)

    def _now(self) -> float:
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _before(self, _, given) -> None:
        phase = f"{self.name}, {len(given[0])} at once"
        self._outer.append(self.memory.enter(phase))
        self.calls.setdefault(phase, []).append(-self._now())

    def _after(self, *_) -> None:
        self.calls[self.memory.phase][-1] += self._now()
        self.memory.enter(self._outer.pop())


def table(report: dict) -> str:
    """Format the report for people."""
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
