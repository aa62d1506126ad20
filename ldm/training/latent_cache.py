"""Writing of latent caches: a training set passed through its frozen networks once, instead of in every epoch."""

import hashlib
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from ldm.checkpoints.io import read_metadata, save_tensors
from ldm.config import FIRST, build, plain
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.training.loop.start import FROZEN, start
from ldm.utils.errors import UserError
from ldm.utils.random import generator


@torch.no_grad()
def write_cache(config: DictConfig, folder: Path, epochs: int, shard: int, part: tuple[int, int]) -> None:
    """Write `epochs` epochs of the `source` of a training config as float16 shards for a `LatentCache`.

    A shard is a function of its number alone: an interrupted call can simply be repeated, and several processes can
    share the work (`part` = (k, n): every n-th shard from the k-th).

    Raises:
        UserError: the folder holds shards made with other frozen weights, conditioner options, source or shard size.
    """
    training, source = start(config).eval(), build(config.source)
    model = training.model
    origin = {"origin": fingerprint(config, model, source, shard)}
    for path in folder.glob("*.safetensors"):
        if read_metadata(path).get("origin") != origin["origin"]:
            raise UserError(
                f"{folder}: {path.name} was made with other frozen weights, source or shard size; empty the folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    shape = model.latent_shape(model.image_size, model.image_size)
    places = [(epoch, offset) for epoch in range(epochs) for offset in range(0, len(source), shard)]
    numbered = [(k, *place) for k, place in enumerate(places)][part[0] :: part[1]]
    todo = [(folder / f"{k:05d}.safetensors", *place) for k, *place in numbered]
    with tqdm(total=sum(min(shard, len(source) - offset) for *_, offset in todo), unit="item", desc="cache") as bar:
        for path, epoch, offset in todo:
            begin = epoch * len(source)  # the items of an epoch follow those of the previous one
            indices = range(begin + offset, begin + min(offset + shard, len(source)))
            if not path.exists():
                pieces = []
                for batch in DataLoader(Subset(source, indices), batch_size=64):
                    draw = generator("latent cache", epoch, offset, len(pieces))
                    noise = torch.randn(len(batch["image"]), training.posteriors, *shape, generator=draw)
                    with torch.autocast("cpu", torch.bfloat16):
                        pieces.append(training.frozen_outputs(batch, noise))
                tensors = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
                halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
                save_tensors(path, halves, origin)
            bar.update(len(indices))


def fingerprint(config: DictConfig, model: LatentDiffusion, source: Dataset, shard: int) -> str:
    """Return a digest of everything that a shard depends on, except its number."""
    nodes = [plain(node, resolve=True) for node in (config.source, config.model.params.conditioner)]
    nodes[0]["target"] = FIRST.get(nodes[0]["target"], nodes[0]["target"])
    digest = hashlib.blake2b(repr((nodes, len(source), shard, model.image_size, model.scale_factor)).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(FROZEN):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
