"""The processes that work on one thing, as the launchers that training uses start them: torchrun, or srun of SLURM."""

import atexit
import os
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from ldm.utils.errors import UserError

T = TypeVar("T")

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
INTERACTIVE = ("bash", "interactive")  # SLURM_JOB_NAME of a shell on a node, where nothing was started by srun
MEETING = timedelta(minutes=30)  # how long the first waits for the others to start, or for a launcher that has died
PATIENCE = timedelta(days=7)  # how long the first to be ready waits for the last; one that ends is noticed at once


@dataclass(frozen=True)
class Share:
    """The part of the work that falls to this process.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local_rank: its number on its machine, which says which GPU is its own.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def part(self, items: Sequence[T]) -> list[T]:
        """Every `world`-th item, from the `rank`-th on."""
        return list(items[self.rank :: self.world])


def this_share() -> Share:
    """What the launcher says, by torchrun's variables or else SLURM's; everything, where none started this process.

    Raises:
        UserError: a variable is no number, or they do not fit together.
    """
    for names in (TORCHRUN, SLURM):
        found = {name: os.environ[name] for name in names if name in os.environ}
        shell = names is SLURM and os.environ.get("SLURM_JOB_NAME") in INTERACTIVE
        if len(found) < len(names) or shell:
            continue
        try:
            rank, world, local_rank = (int(text) for text in found.values())
        except ValueError:
            rank, world, local_rank = 0, 0, 0
        if not (0 <= local_rank <= rank < world):
            told = ", ".join(f"{name}={text}" for name, text in found.items())
            raise UserError(f"{told}: expected a rank below the number of processes")
        return Share(rank, world, local_rank)
    return Share()


def gather(value: T, share: Share) -> list[T]:
    """What each process brings, by rank; all get it, and all wait for the last.

    Raises:
        UserError: another process has ended.
    """
    if share.world == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * share.world
    try:
        if not distributed.is_initialized():
            _say_where_they_meet(os.environ)
            store, rank, world = next(distributed.rendezvous("env://", share.rank, share.world, timeout=MEETING))
            distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=PATIENCE)
            atexit.register(distributed.destroy_process_group)  # without it torch now and then aborts at the exit
        distributed.all_gather_object(values, value)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"process {share.rank} of {share.world}: another one has ended early ({why})") from error
    return values


def wait_for_all(share: Share) -> None:
    """Returns when every process has come here.

    Raises:
        UserError: another process has ended.
    """
    gather(None, share)


def _say_where_they_meet(environment: MutableMapping[str, str]) -> None:
    """MASTER_ADDR and MASTER_PORT, which torchrun sets and srun does not; as Lightning chooses them for training."""
    first = re.sub(r"\[(\d+).*?\]", r"\1", environment.get("SLURM_NODELIST", "127.0.0.1"))  # node[07-09,12] -> node07
    environment.setdefault("MASTER_ADDR", re.split("[ ,]", first)[0])
    environment.setdefault("MASTER_PORT", str(15000 + int(environment.get("SLURM_JOB_ID", "0")[-4:])))
