"""Training items already passed through the frozen networks, held in memory."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from ldm.utils.errors import UserError


class LatentCache(Dataset):
    """A latent cache written by `ldm cache-latents`: the frozen networks' outputs per item, such as its latent `z`.

    Args:
        folder: shards `*.safetensors`, each with the same tensors (float16 or whole numbers) of its items.
    """

    def __init__(self, folder: str):
        shards = sorted(Path(folder).glob("*.safetensors"))
        if not shards:
            raise UserError(
                f"{folder}: expected a latent cache, found no *.safetensors; write it with ldm cache-latents"
            )
        parts = [load_file(shard) for shard in shards]
        self.tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __len__(self) -> int:
        return len(self.tensors["z"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        return [self[index] for index in indices]
