import math

import pytest
import torch

from ldm.models.embeddings import timestep_embedding


@pytest.mark.parametrize("dim", [8, 9])
def test_timestep_embedding_is_the_formula(dim):
    t = torch.tensor([0, 1, 500, 999])
    embedding = timestep_embedding(t, dim)
    assert embedding.dtype == torch.float32 and embedding.shape == (4, dim)
    for row, time in zip(embedding.tolist(), t.tolist(), strict=True):
        angles = [time * 10000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dim % 2)
        assert row == pytest.approx(expected, abs=1e-4)


def test_fractional_times():
    whole, half = timestep_embedding(torch.tensor([3.0, 3.5]), 16)
    assert (whole - half).abs().max() > 0.01
    torch.testing.assert_close(whole, timestep_embedding(torch.tensor([3]), 16)[0])
