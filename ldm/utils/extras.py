"""Packages that only some of the work needs: they come with an extra of setup.py."""

from importlib import import_module

from ldm.utils.errors import UserError
from ldm.utils.project import DISTRIBUTION

EXTRAS = {  # module -> its package, and the extra that it comes with
    "cv2": ("opencv-python-headless", "benchmark"),
    "sklearn": ("scikit-learn", "benchmark"),
    "torch_fidelity": ("torch-fidelity", "benchmark"),
}


def require(module: str) -> None:
    """Called where a module of `EXTRAS` is about to be imported, or will be at the end of a long work.

    Raises:
        UserError: it cannot be.
    """
    try:
        import_module(module)
    except ImportError as error:
        package, _ = EXTRAS[module]
        raise UserError(f"{package}: cannot be imported ({error}); {how_to_install(module)}") from error


def how_to_install(module: str) -> str:
    """The end of a line on a missing module of `EXTRAS`."""
    _, extra = EXTRAS[module]
    return f"it comes with the extra [{extra}]: pip install '{DISTRIBUTION}[{extra}]'"
