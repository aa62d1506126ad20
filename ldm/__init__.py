"""Image editing by diffusion: by example, by a prompt, or by filling holes.

    import ldm

    result = ldm.ExemplarEditor(ldm.load("toyworld"))(image, mask, exemplar, seed=0)
    result = ldm.DiffEdit(ldm.load("toyworld_text"))(image, "a blue ball", "a red ball")
    result = ldm.RePaint(ldm.load("toyworld_prior"))(image, mask)
    result = ldm.TextToImage(ldm.load("toyworld_text"))("a red ball on a meadow", height=64, width=96)

Everything else is imported from its own module. `import ldm` alone imports nothing, so it is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldm.checkpoints.open import load
    from ldm.editors.diffedit import DiffEdit
    from ldm.editors.exemplar import ExemplarEditor
    from ldm.editors.pixel_sampling import PixelSampler
    from ldm.editors.repaint import RePaint
    from ldm.editors.text_to_image import TextToImage
    from ldm.utils.errors import UserError

__version__ = "0.1.0"
__all__ = ["DiffEdit", "ExemplarEditor", "PixelSampler", "RePaint", "TextToImage", "UserError", "load"]

MODULES = {
    "DiffEdit": "ldm.editors.diffedit",
    "ExemplarEditor": "ldm.editors.exemplar",
    "PixelSampler": "ldm.editors.pixel_sampling",
    "RePaint": "ldm.editors.repaint",
    "TextToImage": "ldm.editors.text_to_image",
    "UserError": "ldm.utils.errors",
    "load": "ldm.checkpoints.open",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'ldm' has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
