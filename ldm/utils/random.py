"""Explicit randomness: a seed gives the same noise for every batch size, device and number of processes."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def key_seed(*key: int | str) -> int:
    """Return a seed below 2^63 that is a function of the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator that is a function of the key alone, e.g. `generator(seed, epoch, index)`."""
    return torch.Generator().manual_seed(key_seed(*key))


class NoiseSource:
    """Random numbers for a batch in which every row has its own stream.

    Row k is drawn in float32 on the CPU from a generator seeded `seeds[k]`, so its numbers do not depend on the rest of
    the batch or on the device. Each call continues every row's stream.
    """

    def __init__(self, seeds: Iterable[int]):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def randn(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution, (len(seeds), *shape) float32."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def rand(self) -> Tensor:
        """Draw uniformly from [0, 1), (len(seeds),) float32."""
        return torch.cat([torch.rand(1, generator=g) for g in self.generators])

    def randint(self, high: int) -> Tensor:
        """Draw integers from 0 to high - 1, (len(seeds),) int64."""
        return torch.cat([torch.randint(high, (1,), generator=g) for g in self.generators])
