"""Passing a training set through its frozen networks once, so that training reads latents instead of pictures."""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ldm.training.latent_diffusion import ExemplarTraining, encode_batch
from ldm.utils.random import generator


@torch.no_grad()
def write_cache(
    training: ExemplarTraining, source: Dataset, folder: Path, epochs: int, shard: int, part: tuple[int, int]
) -> None:
    """Write `source`, drawn `epochs` times over, as float16 shards for `ldm.data.latent_cache.LatentCache`.

    A shard is a function of its number alone: an interrupted call is simply repeated, and several processes can share
    the work (`part` = (k, n): every n-th shard from the k-th).
    """
    model = training.model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    shape = model.latent_shape(model.image_size, model.image_size)
    starts = [(epoch, start) for epoch in range(epochs) for start in range(0, len(source), shard)]
    numbered = [(k, *place) for k, place in enumerate(starts)][part[0] :: part[1]]
    todo = [(folder / f"{k:05d}.safetensors", *place) for k, *place in numbered]
    with tqdm(total=sum(min(shard, len(source) - start) for *_, start in todo), unit="item", desc="cache") as bar:
        for path, epoch, start in todo:
            indices = range(start, min(start + shard, len(source)))
            if not path.exists():
                source.set_epoch(epoch)
                pieces = []
                for batch in DataLoader(Subset(source, indices), batch_size=64):
                    draw = generator("latent cache", epoch, start, len(pieces))
                    noise = torch.randn(2, len(batch["image"]), *shape, generator=draw)
                    with torch.autocast("cpu", torch.bfloat16):
                        pieces.append([value.half() for value in encode_batch(model, batch, noise)])
                names = ("z", "concat", "class_token")
                tensors = {
                    name: torch.cat(column) for name, column in zip(names, zip(*pieces, strict=True), strict=True)
                }
                save_file(tensors, f"{path}.part")
                os.replace(f"{path}.part", path)
            bar.update(len(indices))
