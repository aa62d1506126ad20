"""Sizes of files and memory, as they are said to people."""


def size(count: float) -> str:
    """A number of bytes with one decimal, in the units that disks and GPUs are sold in: 1 GB is 10^9 bytes."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} bytes"
