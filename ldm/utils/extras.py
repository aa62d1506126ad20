"""Optional packages, which come with an extra of setup.py."""

from importlib import import_module

from ldm.utils.errors import UserError
from ldm.utils.project import DISTRIBUTION

EXTRAS = {  # module -> its package, and the extra that it comes with
    "cv2": ("opencv-python-headless", "benchmark"),
    "sklearn": ("scikit-learn", "benchmark"),
    "torch_fidelity": ("torch-fidelity", "benchmark"),
}


def require(module: str) -> None:
    """Check that a module of `EXTRAS` can be imported: before importing it, or at the start of a long run.

    Raises:
        UserError: it cannot.
    """
    try:
        import_module(module)
    except ImportError as error:
        package, _ = EXTRAS[module]
        raise UserError(f"{package}: cannot be imported ({error}); {how_to_install(module)}") from error


def how_to_install(module: str) -> str:
    """Return how to install a module of `EXTRAS`, for the end of a message."""
    _, extra = EXTRAS[module]
    return f"it comes with the extra [{extra}]: pip install '{DISTRIBUTION}[{extra}]'"
