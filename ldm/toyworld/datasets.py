"""ToyWorld as training data: captioned crops for CLIP, captioned scenes, and objects for the judge.

For the exemplar model, `OpenImagesDataset` reads a ToyWorld on disk.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset

from ldm.data.augmentation import augment
from ldm.data.crops import cut, padded_box
from ldm.data.images import Epochs, array_to_tensor, read_picture
from ldm.data.recipe import exemplar_tensor
from ldm.toyworld.files import image_folder, read_scenes
from ldm.toyworld.render import labels, render_scene, scene_caption
from ldm.toyworld.scenes import PADDING
from ldm.utils.clip import clip_normalise


class ToyCaptions(Epochs, Dataset):
    """Pairs {"pixels" (3, image_size, image_size) normalised for CLIP, "caption" string} for contrastive training.

    By default three items in four are the crop of one thing, augmented like an exemplar, with the thing's caption; the
    others are whole scenes with the scene's caption. The choice is redrawn each epoch.

    Args:
        root, split: as written by `ldm make-toyworld`.
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


class ToyScenes(Epochs, Dataset):
    """Freshly drawn scenes {"image" (3, size, size) in [-1, 1], "caption" string} to train a text-to-image model on.

    Item i is a function of (seed, epoch, i). Like captions of photos, some are incomplete, so that a prompt need not
    describe the whole scene.

    Args:
        length: number of items.
        size: pixels.
        placeless: share of captions that do not name the background, 0..1.
        partial: share of captions that name only some of several things.
        brief: share of captions that name things without colour and pattern.
    """

    def __init__(
        self,
        length: int,
        size: int,
        seed: int,
        placeless: float = 0.3,
        partial: float = 0.15,
        brief: float = 0.15,
    ):
        super().__init__(seed)
        self.length, self.size = length, size
        self.placeless, self.partial, self.brief = placeless, partial, brief

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        rng = self.random(index)
        scene = render_scene(np.random.default_rng(rng.getrandbits(64)), self.size)
        things, place = scene.objects, scene.background
        if rng.random() < self.partial and len(things) > 1:
            count = rng.randint(1, len(things) - 1)
            things = [things[i] for i in sorted(rng.sample(range(len(things)), count))]
        if rng.random() < self.placeless:
            place = None
        return {
            "image": array_to_tensor(scene.image),
            "caption": scene_caption(things, place, brief=rng.random() < self.brief),
        }


ALONE, IN_COMPANY = 0.5, 0.12  # most that a side of the box moves outwards, as a share of the thing's extent


class ToyWorldJudged(Epochs, Dataset):
    """One thing of one freshly drawn scene per item: {"image", "box", "class", "colour", "pattern"}.

    image: (3, size, size) float32 in [-1, 1]. box: (4,) float32, x0, y0, x1, y1 in pixels. The others: int. Item i is a
    function of (seed, epoch, i).

    An edited picture is softer than a drawn one, and a painted thing need not fill its hole. With `augment` the judge
    learns both: half of the pictures get blur and noise as strong as an autoencoder's, and every side of the box moves,
    further if the thing is alone in its scene.

    Args:
        length: number of items.
        augment: False returns the picture as drawn and the exact box.
        size: pixels.
    """

    def __init__(self, length: int, augment: bool, seed: int, size: int = 64):
        super().__init__(seed)
        self.length, self.augment, self.size = length, augment, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        rng = np.random.default_rng(self.random(index).getrandbits(64))
        scene = render_scene(rng, self.size)
        thing = scene.objects[int(rng.integers(len(scene.objects)))]
        image, box = scene.image, np.array(thing.box, np.float32)
        if self.augment:
            image = soften(image, rng)
            box = shift_sides(box, ALONE if len(scene.objects) == 1 else IN_COMPANY, rng)
        return {"image": array_to_tensor(image), "box": torch.from_numpy(box), **labels(thing)}


def soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur a picture (H, W, 3) uint8 and add noise in half of the cases."""
    if rng.random() < 0.5:
        return image
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0, 6)
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)


def shift_sides(box: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    """Move each side of (x0, y0, x1, y1) independently, up to `reach` of the extent outwards or 6% inwards."""
    extent = np.tile(box[2:] - box[:2], 2)
    return (box + np.array([-1, -1, 1, 1]) * rng.uniform(-0.06, reach, 4) * extent).astype(np.float32)
