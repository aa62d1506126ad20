"""Human-readable sizes of files and memory."""


def size(count: float) -> str:
    """Format a number of bytes with one decimal, in decimal units: 1 GB is 10^9 bytes."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} bytes"
