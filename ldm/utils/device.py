"""Where a model runs and in which precision, when the user leaves it open."""

from pathlib import Path

import torch

from ldm.utils.errors import UserError


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Return the device of a name: `auto` is a CUDA GPU, else Apple's, else the CPU; or a name of torch's, as `cuda:1`.

    Args:
        local_rank: of this process among those of its machine, see `ldm.utils.processes.Share`: `auto` gives each a GPU
            in turn (srun may show a process its own alone).
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = f"cuda:{local_rank % torch.cuda.device_count()}"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # a device that holds no values, such as `meta`, has none to give
        return probe.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # what torch raises depends on the backend
        raise UserError(f"device {name!r}: {str(error).splitlines()[0]}") from error


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed in hardware there: recent GPUs, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if device.type == "cpu" and cpuinfo.is_file() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags
