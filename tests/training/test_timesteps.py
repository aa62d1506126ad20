"""Importance sampling of timesteps."""

import numpy as np
import pytest
import torch

from ldm.training.timesteps import LossAwareSampler
from ldm.utils.random import NoiseSource, key_seed

T = 6


def warm(losses: torch.Tensor, history: int = 10) -> LossAwareSampler:
    """Each timestep has shown one loss, again and again."""
    sampler = LossAwareSampler(len(losses), history)
    for _ in range(history):
        sampler.update(torch.arange(len(losses)), losses)
    return sampler


def many(count: int) -> NoiseSource:
    return NoiseSource(key_seed("timesteps", item) for item in range(count))


def test_probabilities_follow_the_second_moment_with_a_uniform_share():
    """As the original's, in numpy: sqrt(mean(losses^2)), normalised."""
    sampler, draw = LossAwareSampler(T), np.random.default_rng(0)
    shown = draw.uniform(0, 3, (T, 14)).astype(np.float32)
    for k in range(14):
        sampler.update(torch.arange(T), torch.from_numpy(shown[:, k]))
    size = np.sqrt((shown[:, -10:].astype(np.float64) ** 2).mean(1))  # the last ten
    np.testing.assert_allclose(sampler.probabilities().numpy(), 0.999 * size / size.sum() + 0.001 / T, rtol=1e-6)


def test_they_are_uniform_until_every_timestep_has_its_history():
    sampler = LossAwareSampler(T)
    for k in range(10):
        assert torch.equal(sampler.probabilities(), torch.full((T,), 1 / T, dtype=torch.float64))
        sampler.update(torch.arange(T - (k == 9)), torch.arange(1.0, T + 1)[: T - (k == 9)])
    assert sampler.probabilities().unique().numel() == 1
    t, weight = sampler.draw(many(5))
    assert torch.equal(weight, torch.ones(5)) and t.dtype == torch.int64
    sampler.update(torch.tensor([T - 1]), torch.tensor([6.0]))
    assert sampler.probabilities().unique().numel() == T


def test_draws_have_their_probabilities():
    sampler, n = warm(torch.tensor([0.0, 1.0, 2.0, 0.5, 0.0, 4.0])), 20_000
    t, weight = sampler.draw(many(n))
    p = sampler.probabilities()
    error = 4 * (p * (1 - p) / n).sqrt() + 1e-9
    assert ((torch.bincount(t, minlength=T) / n - p).abs() <= error).all()
    torch.testing.assert_close(weight.double(), 1 / (T * p[t]), rtol=1e-6, atol=0)


def test_weights_leave_the_expected_loss_what_it_was():
    losses = torch.tensor([0.1, 1.0, 2.0, 0.5, 0.3, 4.0])
    t, weight = warm(losses).draw(many(20_000))
    weighted = losses[t] * weight
    assert weighted.mean().item() == pytest.approx(losses.mean().item(), rel=1e-3)
    assert weighted.std() < 0.01 * losses.std()  # what it is for


def test_a_draw_depends_on_its_row_alone():
    sampler = warm(torch.arange(1.0, T + 1))
    whole, part = sampler.draw(many(8)), sampler.draw(NoiseSource(key_seed("timesteps", item) for item in (2, 5)))
    assert all(torch.equal(a[[2, 5]], b) for a, b in zip(whole, part, strict=True))


def test_the_order_of_losses_of_one_timestep_counts():
    one, other = LossAwareSampler(2, history=2), LossAwareSampler(2, history=2)
    one.update(torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert one.losses.tolist() == [[2.0, 3.0], [4.0, 0.0]] and one.counts.tolist() == [2, 1]
    other.update(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    other.update(torch.tensor([0, 1]), torch.tensor([3.0, 4.0]))
    assert torch.equal(one.losses, other.losses)


def test_a_loss_that_is_not_finite_is_skipped():
    sampler = warm(torch.ones(3))
    sampler.update(torch.tensor([1, 1, 2]), torch.tensor([float("nan"), float("inf"), 5.0]))
    assert sampler.losses[1].tolist() == [1.0] * 10 and sampler.losses[2, -1] == 5


def test_losses_of_zero_are_drawn_uniformly():
    assert torch.equal(warm(torch.zeros(4)).probabilities(), torch.full((4,), 0.25, dtype=torch.float64))


def test_state_goes_on_where_it_was():
    sampler, other = warm(torch.arange(1.0, T + 1)), LossAwareSampler(T)
    other.load_state_dict({name: tensor.clone() for name, tensor in sampler.state_dict().items()})
    for each in (sampler, other):
        each.update(torch.tensor([3, 3]), torch.tensor([9.0, 8.0]))
    assert torch.equal(sampler.draw(many(50))[0], other.draw(many(50))[0])
