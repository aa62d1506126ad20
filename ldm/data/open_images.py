"""Open Images as self-supervised training data, read from the layout of the official downloads:

root/images/{train_0, train_1, ..., validation, test}/<image id>.jpg
root/bbox/<split>.arrow, or the original's folders of text files: the boxes, written by ldm read-bbox
"""

from pathlib import Path
from random import Random

from ldm.data.box_index import open_boxes
from ldm.data.examples import ExampleDataset
from ldm.data.images import Item
from ldm.data.recipe import Recipe


class OpenImagesDataset(ExampleDataset):
    """The pictures of a split that have a usable box, each once per epoch; one of its boxes is drawn uniformly.

    Args:
        root: folder with `images` and `bbox`.
        split: train, validation or test; the train pictures lie in any number of folders train_*.

    Raises:
        UserError: there are no boxes.
    """

    def __init__(self, root: str, split: str, recipe: Recipe, seed: int = 0, max_unreadable: float = 0.01):
        super().__init__(recipe, seed, max_unreadable)
        self.images, self.boxes = Path(root) / "images", open_boxes(Path(root), split)

    def __len__(self) -> int:
        return len(self.boxes)

    def item(self, place: int, rng: Random) -> Item:
        file = self.images / self.boxes.image(place)
        item = self.example(file, lambda width, height: self.boxes.boxes(place, width, height), rng)
        return {**item, "image_id": file.stem}
