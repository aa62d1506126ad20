"""The benchmark on ToyWorld to be looked at: what its rows made of some scenes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from ldm.benchmark.toyworld_figures import Scenes
from ldm.utils.contact_sheet import contact_sheet
from ldm.utils.files import replacing
from ldm.utils.image import to_pil

EXAMPLES, SIDE = 8, 192  # scenes that are shown; pixels


def plot_examples(scenes: Scenes, rows: Mapping[str, Sequence[Image.Image]], path: Path) -> None:
    """Write a PNG: some scenes, one a line, their exemplars, and what each row of the benchmark made of them.

    Args:
        rows: by name; what has no pictures is left out.
    """
    items = scenes.items[:EXAMPLES]
    columns = {
        "scene": [to_pil(item["image"] * (1 - item["mask"])) for item in items],
        "exemplar": [item["exemplar"] for item in items],
        **{name: pictures[: len(items)] for name, pictures in rows.items() if pictures},
    }
    with replacing(path) as partial:
        contact_sheet(columns, SIDE).save(partial, format="PNG")
