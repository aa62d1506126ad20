"""The choice of a model's device and precision when the user leaves it open."""

from pathlib import Path

import torch

from ldm.utils.errors import UserError


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Return a device: for `auto` a CUDA GPU, else Apple's, else the CPU; otherwise torch's device of that name.

    Args:
        local_rank: rank of this process on its machine, see `ldm.utils.processes.Share`; `auto` assigns GPUs in turn
            (srun may show each process only its own).

    Raises:
        UserError: torch has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = f"cuda:{local_rank % torch.cuda.device_count()}"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # fails on a device without values, such as `meta`
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises depends on the backend
        raise UserError(f"device {name!r}: {str(error).splitlines()[0]}") from error


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 in hardware: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if device.type == "cpu" and cpuinfo.is_file() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags
