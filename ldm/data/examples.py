"""Training items from pictures, boxes and masks."""

from collections.abc import Callable
from pathlib import Path
from random import Random

from torch import Tensor

from ldm.data.images import TolerantDataset, read_picture
from ldm.data.recipe import Recipe
from ldm.utils.errors import UserError
from ldm.utils.mask import Box, open_mask


class ExampleDataset(TolerantDataset):
    """A data set of the recipe's items, see `Recipe.__call__`, each with an "image_id", a string."""

    def __init__(self, recipe: Recipe, seed: int, max_unreadable: float):
        super().__init__(seed, max_unreadable)
        self.recipe = recipe

    def example(
        self,
        file: Path,
        boxes: Callable[[int, int], list[Box]],
        rng: Random,
        mask: Path | None = None,
        exemplar: Path | None = None,
    ) -> dict[str, Tensor]:
        """Apply the recipe to files; `boxes` gets the picture's width and height. UserErrors name the file."""
        picture = read_picture(file)
        height, width = picture.shape[:2]
        pixels = boxes(width, height)
        hole = None if mask is None else (open_mask(mask, (width, height))[0, 0] * 255).byte().numpy()
        shown = None if exemplar is None else read_picture(exemplar)
        try:
            return self.recipe(picture, pixels, rng, hole, shown)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
