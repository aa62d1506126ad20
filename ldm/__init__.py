"""Image editing by diffusion: after an exemplar picture, after a prompt, or by filling holes.

    import ldm

    result = ldm.ExemplarEditor(ldm.load("toyworld"))(image, mask, exemplar, seed=0)
    result = ldm.DiffEdit(ldm.load("toyworld_text"))(image, "a blue ball", "a red ball")
    result = ldm.RePaint(ldm.load("toyworld_prior"))(image, mask)
    result = ldm.TextToImage(ldm.load("toyworld_text"))("a red ball on a meadow", height=64, width=96)

Everything else is imported from its own module. `import ldm` alone imports nothing, so it is fast.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["DiffEdit", "ExemplarEditor", "PixelSampler", "RePaint", "TextToImage", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from ldm.checkpoints.load import load

        return load
    if name == "ExemplarEditor":
        from ldm.presets import exemplar_editor

        return exemplar_editor  # the class, with the settings of configs/edit that editors themselves do not read
    if name == "DiffEdit":
        from ldm.presets import diffedit_editor

        return diffedit_editor
    if name == "TextToImage":
        from ldm.presets import text_to_image

        return text_to_image
    if name == "RePaint":
        from ldm.presets import repaint_editor

        return repaint_editor
    if name == "PixelSampler":
        from ldm.presets import pixel_sampler

        return pixel_sampler
    raise AttributeError(f"module 'ldm' has no attribute {name!r}")
