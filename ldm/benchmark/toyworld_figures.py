"""Measurements on edits by example in ToyWorld, where everything about scene and exemplar is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ldm.data.crops import cut, padded_box
from ldm.evaluation.clip_score import cosine_score
from ldm.evaluation.copy_paste import Thing, copied, cut_out
from ldm.evaluation.extractors import Extractor
from ldm.presets import Compositing
from ldm.studies.exemplar_edits import judge_edits
from ldm.studies.judging import HEADS, Figures, join
from ldm.toyworld.judge import Judge
from ldm.toyworld.render import render_scene, scene_id
from ldm.toyworld.scenes import PADDING, ExemplarScenes, collate, draw_things
from ldm.utils.image import to_tensor
from ldm.utils.mask import mask_box

HOLES = {"box": "mask", "blob": "blob"}  # kind of hole -> its key in an item
BATCH = 50


class Features(NamedTuple):
    """The features of pictures, (N, d) each: of their holes and of the whole pictures."""

    holes: Tensor
    whole: Tensor

    @classmethod
    def join(cls, parts: Sequence["Features"]) -> "Features":
        """Concatenate the features of batches."""
        return cls(*map(torch.cat, zip(*parts, strict=True)))

    def split(self, count: int) -> tuple["Features", "Features"]:
        """Split into the first `count` pictures and the others."""
        return Features(*(x[:count] for x in self)), Features(*(x[count:] for x in self))


@dataclass
class Scenes:
    """The scenes of the benchmark, drawn when they are needed.

    Args:
        seed, count, size: as in `ExemplarScenes`.
    """

    seed: int
    count: int
    size: int = 64

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The items of `ExemplarScenes`."""
        data = ExemplarScenes(self.seed, self.count, self.size)
        return [data[i] for i in range(self.count)]

    @cached_property
    def things(self) -> list[Thing]:
        """The things that the exemplars show, cut out of their scenes."""
        return [cut_out(item["donor"], item["donor_visible"], item["donor_box"]) for item in self.items]

    @cached_property
    def others(self) -> list[Thing]:
        """Another thing of the same class, colour and pattern for each exemplar."""
        wanted = [tuple(item[head] for head in HEADS) for item in self.items]
        found: dict[tuple[int, ...], list[Thing]] = {}
        for drawn in draw_things(wanted, self.seed, self.size):
            kind = tuple(drawn[head] for head in HEADS)
            found.setdefault(kind, []).append(cut_out(drawn["image"], drawn["visible"], drawn["box"]))
        return [found[kind].pop() for kind in wanted]

    def pastes(self) -> list[Tensor]:
        """Paste each exemplar, stretched, into its hole, (3, size, size): the extreme case of copying."""
        return [_paste(item) for item in self.items]


def _paste(item: Mapping[str, Any]) -> Tensor:
    x0, y0, x1, y1 = mask_box(item["mask"][None])
    pasted = item["image"].clone()
    exemplar = to_tensor(item["exemplar"])
    pasted[:, y0:y1, x0:x1] = F.interpolate(exemplar, (y1 - y0, x1 - x0), mode="bilinear", antialias=True)[0]
    return pasted


@torch.no_grad()
def figures(
    scenes: Scenes, edited: Sequence[Tensor], judge: Judge, clip: Extractor, compositing: Compositing
) -> tuple[list[Image.Image], Features, Figures]:
    """Measure edits of box-shaped holes, those of all scenes.

    Args:
        edited: (3, H, W) in [-1, 1] each, as decoded, before compositing.
        compositing: how the finished pictures are made.

    Returns:
        The finished pictures, `clip`'s features of their holes and of the whole, and the figures of each picture:
        those of `ldm.studies.exemplar_edits.judge_edits`,
        clip score: 100 times the cosine between hole and exemplar,
        pose, pixels: see `ldm.evaluation.copy_paste.copied`.
    """
    shown: list[Image.Image] = []
    parts, seen = [], []
    for rows, batch, pictures, values in _judged(scenes, edited, "box", judge, compositing):
        holes = [mask_box(mask[None]) for mask in batch["mask"]]
        crops = [picture.crop(hole) for picture, hole in zip(pictures, holes, strict=True)]
        copies = [
            copied(to_tensor(picture)[0], batch["box"][k], scenes.things[i], scenes.others[i])
            for k, (i, picture) in enumerate(zip(rows, pictures, strict=True))
        ]
        seen.append(Features(_seen(clip, crops), _seen(clip, pictures)))
        values["clip score"] = cosine_score(seen[-1].holes, _seen(clip, batch["exemplar"]))
        values["pose"], values["pixels"] = torch.tensor(copies).unbind(1)
        parts.append(values)
        shown += pictures
    return shown, Features.join(seen), join(parts)


@torch.no_grad()
def blob_answers(scenes: Scenes, edited: Sequence[Tensor], judge: Judge, compositing: Compositing) -> Tensor:
    """Judge whether edits of blob-shaped holes show the class, colour and pattern of their exemplars, (N,) bool."""
    return torch.cat([values["edit/all"] for *_, values in _judged(scenes, edited, "blob", judge, compositing)])


def _judged(
    scenes: Scenes, edited: Sequence[Tensor], hole: str, judge: Judge, compositing: Compositing
) -> Iterator[tuple[range, dict[str, Any], list[Image.Image], Figures]]:
    """Yield for each batch its indices, its items, the finished pictures and the figures of `judge_edits`."""
    for start in range(0, len(edited), BATCH):
        rows = range(start, min(start + BATCH, len(edited)))
        batch = collate([scenes.items[i] for i in rows])
        raw = torch.stack([edited[i] for i in rows])
        yield rows, batch, *judge_edits(judge, batch, raw, batch[HOLES[hole]], compositing)


def _seen(extractor: Extractor, pictures: Sequence[Image.Image]) -> Tensor:
    return extractor(torch.stack([extractor.prepare(picture) for picture in pictures]))


def real_features(clip: Extractor, seed: int, count: int) -> Features:
    """Return features of real scenes outside all training sets; instead of holes, things cropped like exemplars."""
    seen = []
    with tqdm(total=count, unit="image", desc="real scenes", disable=None) as bar:
        for start in range(0, count, BATCH):
            ids = [scene_id(seed, "reference", i) for i in range(start, min(start + BATCH, count))]
            scenes = [render_scene(id) for id in ids]
            crops = [cut(s.image, padded_box(s.objects[0].box, PADDING, *s.image.shape[1::-1])) for s in scenes]
            pictures = [[Image.fromarray(pixels) for pixels in kind] for kind in (crops, [s.image for s in scenes])]
            seen.append(Features(*(_seen(clip, kind) for kind in pictures)))
            bar.update(len(ids))
    return Features.join(seen)
