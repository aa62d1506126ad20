"""Explicit randomness: the same seed draws the same noise whatever the batch, the device or the number of processes."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def key_seed(*key: int | str) -> int:
    """A seed below 2^63 that is a function of the key alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a function of the key alone, e.g. `generator(seed, epoch, index)`."""
    return torch.Generator().manual_seed(key_seed(*key))


class NoiseSource:
    """Random numbers for a batch in which every row has a stream of its own.

    Row k is drawn in float32 on the CPU from a generator seeded `seeds[k]`, so its numbers do not change with the
    batch it sits in or the device it ends up on. Each call continues every row's stream.
    """

    def __init__(self, seeds: Iterable[int]):
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def randn(self, *shape: int) -> Tensor:
        """Standard normal, (len(seeds), *shape) float32."""
        return torch.stack([torch.randn(shape, generator=g) for g in self.generators])

    def rand(self) -> Tensor:
        """Uniform in [0, 1), (len(seeds),) float32."""
        return torch.cat([torch.rand(1, generator=g) for g in self.generators])

    def randint(self, high: int) -> Tensor:
        """Whole numbers in 0 .. high - 1, (len(seeds),) int64."""
        return torch.cat([torch.randint(high, (1,), generator=g) for g in self.generators])
