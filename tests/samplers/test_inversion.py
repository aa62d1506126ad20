"""DDIM inversion: against closed forms, an implementation of its own in float64, and diffusers' inverse scheduler."""

import diffusers
import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.samplers.ddim import ddim, ddim_invert
from tests.editors.diffusers_peers import CONTEXT, LATENT_DIFFUSION, our_unet
from tests.golden_weights import fill
from tests.samplers.gaussian import SCHEDULE, Gaussian

X = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
MEANS, STD = (-1.0, 0.8), 0.35


def mixture(x, a):
    """E[eps | x] for data that is one of two equal Gaussians: not linear in x."""
    variance = a * STD**2 + 1 - a
    distances = [x - a**0.5 * mean for mean in MEANS]
    weights = [np.exp(-(d**2) / (2 * variance)) for d in distances]
    return (1 - a) ** 0.5 / variance * sum(w * d for w, d in zip(weights, distances, strict=True)) / sum(weights)


def denoise(x, t):
    return torch.from_numpy(mixture(x.numpy(), ALPHAS[t.numpy()][:, None]))


def plain_inversion(x, timesteps, refine):
    """Equation 12 of 2010.02502 upwards, in plain loops over numbers."""
    record = {}
    for number, value in enumerate(x):
        before = 0
        for t in sorted(timesteps):
            a, b = ALPHAS[before], ALPHAS[t]
            arrived = value
            for _ in range(1 + refine):
                eps = mixture(arrived, b)
                arrived = b**0.5 * (value - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
            value, before = arrived, t
            record[t, number] = value
    return record


@pytest.mark.parametrize("S, ratio", [(1, 1.0), (2, 0.5), (10, 0.8), (50, 0.8), (50, 1.0)])
@pytest.mark.parametrize("refine", [0, 3])
def test_against_an_implementation_of_its_own(S, ratio, refine):
    timesteps = sampling_timesteps(S)[-round(ratio * S) :]
    record = ddim_invert(denoise, X, SCHEDULE, timesteps, refine=refine)
    expected = plain_inversion(X[:, 0].tolist(), timesteps.tolist(), refine)
    assert sorted(record) == sorted([0, *timesteps.tolist()])
    assert record[0] is X
    for (t, number), value in expected.items():
        assert record[t][number, 0].item() == pytest.approx(value, abs=1e-11)


def test_the_picture_itself_stays_at_t_0_where_the_grid_has_it():
    """A step from t = 0 to t = 0 would change it by rounding."""
    x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    record = ddim_invert(lambda x, t: x.sin(), x, SCHEDULE, sampling_timesteps(1000)[-3:])
    assert sorted(record) == [0, 1, 2]
    assert torch.equal(record[0], x)


def test_calls_and_callback():
    calls, told = [], []

    def counted(x, t):
        calls.append(t[0].item())
        return denoise(x, t)

    timesteps = sampling_timesteps(10)[-4:]
    record = ddim_invert(counted, X, SCHEDULE, timesteps, refine=2, callback=lambda *step: told.append(step))
    upwards = timesteps.flip(0).tolist()
    assert calls == [t for t in upwards for _ in range(3)]
    assert [(i, t) for i, t, _, _ in told] == list(enumerate(upwards))
    assert all(x is record[t] for _, t, x, _ in told)


def round_trip(S, refine, denoise=denoise, x=X):
    timesteps = sampling_timesteps(S)[-round(0.8 * S) :]
    record = ddim_invert(denoise, x, SCHEDULE, timesteps, refine=refine)
    return (ddim(denoise, record[timesteps[0].item()], SCHEDULE, timesteps) - x).abs().max().item()


def test_refinement_makes_ddim_undo_it():
    """On an eps that is not linear: every iteration brings the way back closer, down to rounding."""
    for S in (10, 50):
        errors = [round_trip(S, refine) for refine in (0, 1, 2, 4, 8)]
        assert all(after < 0.99 * before for before, after in zip(errors, errors[1:], strict=False))
        assert errors[0] > 0.05
    assert errors[-1] < 1e-5 and round_trip(50, 40) < 1e-13


def test_without_refinement_the_round_trip_is_of_first_order():
    errors = [round_trip(S, 0) for S in (25, 50, 100, 200, 500)]
    orders = [np.log(errors[0] / e) / np.log(S / 25) for S, e in zip((50, 100, 200, 500), errors[1:], strict=True)]
    assert all(order == pytest.approx(1, abs=0.25) for order in orders)


def test_it_climbs_the_probability_flow():
    """Up to 1/S the sample is where the exact flow of a Gaussian leads: as many standard deviations from the mean."""
    data, errors = Gaussian(0.7, 0.3), []
    for S in (50, 500):
        timesteps = sampling_timesteps(S)
        record = ddim_invert(data.denoise, data.flow(X, 0), SCHEDULE, timesteps)
        errors.append(max((record[t] - data.flow(X, t)).abs().max().item() for t in timesteps.tolist()))
    assert errors[1] < 0.05 and errors[1] < errors[0] / 5


@pytest.fixture(scope="module")
def network():
    unet = fill(our_unet(4)).eval().requires_grad_(False)
    context = torch.randn(2, 5, CONTEXT, generator=torch.Generator().manual_seed(3))
    return lambda x, t: unet(x, t, context)


@pytest.mark.parametrize("S, ratio", [(1, 1.0), (4, 0.5), (10, 0.8), (20, 0.3), (10, 1.0)])
def test_against_diffusers(network, S, ratio):
    """Theirs, with `set_alpha_to_one=False` (the clean end is at t = 0), `steps_offset=1` (the grid begins at 1) and
    `clip_sample=False`, on the lowest ratio S timesteps of the grid; S divides 1000, as theirs demands."""
    inverse = diffusers.DDIMInverseScheduler(**LATENT_DIFFUSION, clip_sample=False)
    forward = diffusers.DDIMScheduler(**LATENT_DIFFUSION, clip_sample=False)
    inverse.set_timesteps(S)
    forward.set_timesteps(S)
    n = round(ratio * S)
    timesteps = sampling_timesteps(S)[-n:]
    assert inverse.timesteps[:n].flip(0).tolist() == timesteps.tolist() == forward.timesteps[-n:].tolist()

    start = x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    ours = ddim_invert(network, start, Schedule.scaled_linear(), timesteps)
    for t in inverse.timesteps[:n]:
        x = inverse.step(network(x, t.expand(2)), t, x).prev_sample
        assert (ours[int(t)] - x).abs().max() < 3e-5 * x.abs().max()
    back = ddim(network, ours[int(timesteps[0])], Schedule.scaled_linear(), timesteps)
    for t in timesteps:
        x = forward.step(network(x, t.expand(2)), t, x).prev_sample
    assert (back - x).abs().max() < 3e-5 * x.abs().max()
    assert torch.equal(ours[0], start)
