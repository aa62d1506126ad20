"""Measurements on results of COCOEE, item by item."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import methodcaller
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.benchmark.layout import Item
from ldm.evaluation.background import background_scores
from ldm.evaluation.clip_score import Convention, RegionCrop, cosine_score, whole
from ldm.evaluation.extractors import Extractor
from ldm.evaluation.feature_cache import FeatureCache, Preparation, features_of
from ldm.utils.image import of_one_size, open_image, picture_size, to_tensor
from ldm.utils.mask import open_mask


@dataclass(frozen=True)
class NamedPreparation:
    """A named function of pictures, see `ldm.evaluation.feature_cache.Preparation`."""

    name: str
    of: Callable[[Image.Image], Image.Image | Tensor]

    def __call__(self, image: Image.Image) -> Image.Image | Tensor:
        return self.of(image)


@dataclass(frozen=True, eq=False)
class ItemResults:
    """The results of some items.

    Args:
        folder: of the results, `<id>.png`.
        cache: features of earlier runs.
        batch: number of pictures fed to an extractor at a time.
    """

    items: Sequence[Item]
    folder: Path
    cache: FeatureCache
    batch: int

    @classmethod
    def there(cls, items: Sequence[Item], folder: Path, cache: FeatureCache, batch: int) -> "ItemResults":
        """Return the results of those items whose result file exists."""
        return cls([item for item in items if (folder / f"{item.id}.png").is_file()], folder, cache, batch)

    @cached_property
    def files(self) -> list[Path]:
        """The result files.

        Raises:
            UserError: their sizes differ.
        """
        return of_one_size([self.folder / f"{item.id}.png" for item in self.items])

    def hole(self, item: Item) -> Tensor:
        """Read the mask of an item, (1, 1, H, W), 1 = repainted."""
        return open_mask(item.mask, picture_size(item.image), resize=False)

    def features(
        self,
        extractor: Extractor,
        files: Sequence[Path] | None = None,
        prepare: Preparation | Sequence[Preparation] | None = None,
    ) -> Tensor:
        """Return the features (N, d) of the results, or of other files."""
        return features_of(extractor, files or self.files, self.cache, self.batch, prepare)

    def clip_score(self, clip: Extractor, convention: Convention) -> Tensor:
        """Return the scores (N,) between edited boxes and exemplars, see `ldm.evaluation.clip_score`."""
        crops = [RegionCrop(item.box, convention) for item in self.items]
        seen = self.features(clip, prepare=crops)
        return cosine_score(seen, self.features(clip, self.exemplars, whole))

    def box_score(self, extractor: Extractor) -> Tensor:
        """Return the scores (N,) between cropped boxes and exemplars, both prepared by the extractor."""
        cuts = [NamedPreparation(f"box {item.box} cut out", methodcaller("crop", item.box)) for item in self.items]
        return cosine_score(self.features(extractor, prepare=cuts), self.features(extractor, self.exemplars))

    def background_scores(self, lpips: Callable[[Tensor, Tensor], Tensor] | None) -> Mapping[str, Tensor]:
        """Return the scores (N,) of `ldm.evaluation.background`, by name."""
        found = []
        pairs = zip(self.items, self.files, strict=True)
        for item, file in tqdm(pairs, "background", len(self.items), unit="image", disable=None):
            edited, scene = (to_tensor(open_image(path).convert("RGB")) for path in (file, item.image))
            found.append(background_scores(edited, scene, self.hole(item), lpips))
        return {name: torch.cat([scores[name] for scores in found]) for name in found[0]}

    @property
    def exemplars(self) -> list[Path]:
        """The exemplar files."""
        return [item.exemplar for item in self.items]
