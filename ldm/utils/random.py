"""Explicit randomness: the same seed draws the same noise whatever the batch, the device or the number of processes."""

import hashlib
from collections.abc import Sequence

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a function of the key alone, e.g. `generator(seed, epoch, index)`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class NoiseSource:
    """Standard normal noise for a batch in which every row has a stream of its own.

    Row k is drawn in float32 on the CPU from a generator seeded `seeds[k]`, so its noise does not change with the
    batch it sits in or the device it ends up on.
    """

    def __init__(self, seeds: Sequence[int]):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def randn(self, *shape: int) -> torch.Tensor:
        """(len(seeds), *shape) float32 on the CPU; each call continues every row's stream."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])
