"""ToyWorld as training data: pictures with captions (boxes and masks are read by `OpenImagesDataset`)."""

from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.augmentation import augment
from ldm.data.crops import cut, padded_box
from ldm.data.images import Epochs, read_picture
from ldm.data.recipe import exemplar_tensor
from ldm.data.toyworld_cross import PADDING
from ldm.data.toyworld_files import image_folder, read_scenes
from ldm.utils.clip import clip_normalise


class ToyCaptions(Epochs, Dataset):
    """Pairs {"pixels" (3, image_size, image_size) normalised for CLIP, "caption" string} for contrastive training.

    Three items in four are the crop of one thing, augmented as exemplars are, with the thing's caption; the others are
    whole scenes with the scene's caption. Which, is drawn anew each epoch.

    Args:
        root, split: what `scripts/make_toyworld.py` wrote.
        scenes: share of whole scenes, 0..1.
    """

    def __init__(self, root: str, split: str, image_size: int, seed: int = 0, scenes: float = 0.25):
        super().__init__(seed)
        self.folder, self.scenes = image_folder(root, split), read_scenes(root, split)
        self.image_size, self.share = image_size, scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        rng, scene = self.random(index), self.scenes[index % len(self)]
        picture = read_picture(Path(self.folder) / f"{scene['image_id']}.jpg")
        if rng.random() < self.share:
            pixels, caption = exemplar_tensor(picture, self.image_size), scene["caption"]
        else:
            thing = rng.choice(scene["objects"])
            crop = cut(picture, padded_box(thing["box"], PADDING, picture.shape[1], picture.shape[0]))
            pixels, caption = augment(exemplar_tensor(crop, self.image_size), rng), thing["caption"]
        return {"pixels": clip_normalise(pixels), "caption": caption}
