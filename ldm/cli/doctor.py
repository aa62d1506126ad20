"""Examine weights: what a file is, what it lacks, whether its networks work.

ldm doctor pretrained_models/model.ckpt
"""

import sys
from pathlib import Path

from ldm.utils.cli import Parser


def main() -> None:
    parser = Parser(
        "Say what a weights file is and whether it works: for pictures that come out black, washed out or as noise. "
        "Nothing in the file is executed. Exit code: 0 fine, 1 problems found, 2 cannot be read."
    )
    parser.add_argument("ckpt", nargs="+", type=Path, help="the weights, in one file or in several of one model")
    parser.add_argument("--config", help="what they are meant for (default: the known model that they are nearest to)")
    parser.add_argument("--device", default="auto", help="where to run the networks: auto, cpu, cuda, cuda:1, ...")
    options = parser.parse_args()

    import shutil

    import torch

    from ldm.data.images import array_to_tensor
    from ldm.doctor.examine import examine
    from ldm.doctor.report import render, verdict
    from ldm.toyworld.render import render_scene
    from ldm.utils.device import choose_device

    def pictures(side: int) -> torch.Tensor:
        return torch.stack([array_to_tensor(render_scene(index, side).image) for index in range(2)])

    findings = examine(options.ckpt, options.config, choose_device(options.device), pictures)
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns))
    line, fine = verdict(findings)
    print(render(findings, width), line, sep="\n\n")
    sys.exit(0 if fine else 1)
