"""Several processes that train together on the CPU, as torchrun would start them."""

import os
import socket
from collections.abc import Callable

import torch

HANGS = 900  # seconds after which a process is taken to hang, however busy the machine


def train_together(function: Callable, *arguments: object, count: int = 2) -> None:
    """Call `function(rank, *arguments)` in `count` processes that find each other (gloo, over the loopback)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_start, (count, port, function, arguments), nprocs=count)


def _start(rank: int, count: int, port: int, function: Callable, arguments: tuple) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
    function(rank, *arguments)
