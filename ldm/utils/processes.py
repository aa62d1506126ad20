"""Processes that share a job, started by torchrun or by SLURM's srun, as in training."""

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
INTERACTIVE = ("bash", "interactive")  # SLURM_JOB_NAME of a shell on a node, not started by srun
MEETING = timedelta(minutes=30)  # how long the first process waits for the others to start
PATIENCE = timedelta(days=7)  # how long the first to finish waits for the last; a process that dies is noticed at once


@dataclass(frozen=True)
class Share:
    """This process's share of a job.

    Attributes:
        rank: of this process, from 0.
        world: number of processes.
        local_rank: rank on this machine, which selects the GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def part(self, items: Sequence[T]) -> list[T]:
        """Return every `world`-th item, starting at the `rank`-th."""
        return list(items[self.rank :: self.world])


def this_share() -> Share:
    """Read this process's share from the variables of torchrun or SLURM; without a launcher it is the whole job.

    Raises:
        UserError: a variable is not a number, or they contradict each other.
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
            variables = ", ".join(f"{name}={text}" for name, text in found.items())
            raise UserError(f"{variables}: expected a rank below the number of processes")
        return Share(rank, world, local_rank)
    return Share()


def gather(value: T, share: Share) -> list[T]:
    """Return the values of all processes, by rank, in every process, after waiting for the last.

    Raises:
        UserError: another process has ended.
    """
    if share.world == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * share.world
    try:
        if not distributed.is_initialized():
            _set_rendezvous(os.environ)
            store, rank, world = next(distributed.rendezvous("env://", share.rank, share.world, timeout=MEETING))
            distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=PATIENCE)
            atexit.register(distributed.destroy_process_group)  # without it torch sometimes aborts at exit
        distributed.all_gather_object(values, value)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"process {share.rank} of {share.world}: another process has ended early ({why})") from error
    return values


def wait_for_all(share: Share) -> None:
    """Wait until every process has reached this point.

    Raises:
        UserError: another process has ended.
    """
    gather(None, share)


def _set_rendezvous(environment: MutableMapping[str, str]) -> None:
    """Set MASTER_ADDR and MASTER_PORT, which srun, unlike torchrun, does not, as Lightning does for training."""
    first = re.sub(r"\[(\d+).*?\]", r"\1", environment.get("SLURM_NODELIST", "127.0.0.1"))  # node[07-09,12] -> node07
    environment.setdefault("MASTER_ADDR", re.split("[ ,]", first)[0])
    environment.setdefault("MASTER_PORT", str(15000 + int(environment.get("SLURM_JOB_ID", "0")[-4:])))
