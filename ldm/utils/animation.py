"""Animated pictures of a process."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ldm.utils.files import replacing

TICK = 10  # milliseconds, the format's unit of time
SHORTEST = 20  # milliseconds; viewers show a shorter frame for 100


def save_gif(frames: Sequence[Image.Image], path: str | Path, seconds: float = 5.0, hold: float = 2.0) -> None:
    """Write an endlessly looping GIF atomically into an existing folder.

    Args:
        frames: of one size; each gets its own palette of 256 colours.
        seconds: for all frames together, at most 50 frames per second.
        hold: additional seconds for the last frame.

    Raises:
        UserError: the file cannot be written.
    """
    each = max(round(1000 * seconds / len(frames) / TICK) * TICK, SHORTEST)
    durations = [each] * (len(frames) - 1) + [each + round(1000 * hold / TICK) * TICK]
    first, *others = (frame.convert("RGB").quantize(256, kmeans=1) for frame in frames)
    with replacing(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=others, duration=durations, loop=0)
