"""Image editing by latent diffusion: an image, a mask and an exemplar in, the edited image out.

    import ldm

    model = ldm.load("toyworld")
    result = ldm.ExemplarEditor(model)(image, mask, exemplar, seed=0)

Everything else is imported from its own module. `import ldm` alone imports nothing, so it is fast.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["ExemplarEditor", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from ldm.checkpoints.load import load

        return load
    if name == "ExemplarEditor":
        from ldm.runs.settings import exemplar_editor

        return exemplar_editor  # the class, with the settings of configs/edit that editors themselves do not read
    raise AttributeError(f"module 'ldm' has no attribute {name!r}")
