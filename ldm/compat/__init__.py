"""Config files of the original codes in our layout, each code by a table of its own."""

from ldm.compat import latent_diffusion, repaint
from ldm.compat.table import Flat

CODES = (latent_diffusion, repaint)


def is_original(node: dict) -> bool:
    """Whether a config file is one of an original code's."""
    return any(code.wrote(node) for code in CODES)


def translate(node: dict, file: str) -> tuple[str, Flat, dict[str, str]]:
    """Which of our configs a file comes down to, with which values by dotted keys; and what is left out, and why.

    Raises:
        UserError: a key is unknown, or says what this code cannot do.
    """
    return next(code for code in CODES if code.wrote(node)).translate(node, file)
