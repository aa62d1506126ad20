"""What holds for every sampler: calls, times, hook, callback, and that nothing waits for the device."""

import pytest
import torch

from ldm.diffusion.process import q_sample, x0_from_eps
from ldm.diffusion.schedule import sampling_timesteps
from ldm.samplers import SAMPLERS
from tests.refusals import refused
from tests.samplers.gaussian import END, SCHEDULE, Gaussian, Normal, level

ALL = sorted(SAMPLERS)
DATA = Gaussian(0.7, 0.3)
X = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]


def run(name, timesteps, x=X, denoise=DATA.denoise, **options):
    return SAMPLERS[name](denoise, x, SCHEDULE, timesteps, noise=Normal(len(x)), **options)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("S", [1, 2, 3, 6, 30])
def test_calls_and_their_times(name, S):
    calls, steps = [], sampling_timesteps(S).tolist()

    def denoise(x, t):
        assert t.dtype == torch.int64 and t.shape == (len(x),) and len(set(t.tolist())) == 1
        calls.append(t[0].item())
        return DATA.denoise(x, t)

    run(name, steps, denoise=denoise)
    trial = [[*steps, 0][1]] if name == "plms" else []  # at the end of the first step, by Heun's rule
    assert calls == [steps[0], *trial, *steps[1:]]


@pytest.mark.parametrize("name", ALL)
def test_samplers_are_registered_under_their_names(name):
    assert SAMPLERS[name].__name__ == name and set(END) == set(SAMPLERS)


@pytest.mark.parametrize("name", ALL)
def test_callback_follows_every_step(name):
    seen, inputs = [], {}

    def denoise(x, t):
        inputs[t[0].item()] = x  # of PLMS's two calls at its second timestep, the one after the step
        return DATA.denoise(x, t)

    timesteps = sampling_timesteps(5)
    result = run(name, timesteps, denoise=denoise, callback=lambda *step: seen.append(step))
    assert [(i, t) for i, t, _, _ in seen] == list(enumerate(timesteps.tolist()))
    assert seen[-1][2] is result
    for (_, _, x, _), t in zip(seen, timesteps[1:].tolist(), strict=False):
        assert x is inputs[t]
    if name != "plms":  # whose eps is extrapolated
        t = torch.full((len(X),), 401)
        x0 = x0_from_eps(inputs[401], DATA.denoise(inputs[401], t), level(401))
        torch.testing.assert_close(seen[2][3], x0)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"ddpm"}))  # whose levels test_ancestral.py checks by their spread
@pytest.mark.parametrize("S", [1, 20, 1000])
def test_hook_is_told_the_level_that_x_has(name, S):
    """The steps are exact for a point of data: x is on the flow at the level named, and nowhere else."""
    data, timesteps, levels = Gaussian(0.7, 0.0), sampling_timesteps(S), []

    def check(x, t):
        levels.append(t)
        torch.testing.assert_close(x, data.flow(X, t), rtol=0, atol=1e-9)
        return x

    run(name, timesteps, x=data.flow(X, timesteps[0].item()), denoise=data.denoise, hook=check)
    assert levels == [*timesteps[1:].tolist(), END[name]]


@pytest.mark.parametrize("name", ALL)
def test_known_part_injected_by_the_hook(name):
    """Known rows keep the noise level of the rest, end as they are known, and leave the other rows alone."""
    known, fresh, spreads = torch.full((20_000, 1), -1.5).double(), Normal(20_000, seed=2), []
    x = torch.cat([Normal(20_000, seed=3)(1), X])

    def inject(x, t):
        x = torch.cat([q_sample(known, fresh(1), level(t)), x[20_000:]])
        spreads.append((x[:20_000].var().item(), 1 - level(t)))
        return x

    def noise_for(rows):  # the last six rows draw the same, whether the known ones are there or not
        source, rest = Normal(6), Normal(20_000, seed=4)
        return lambda *shape: torch.cat([rest(*shape), source(*shape)])[-rows:]

    timesteps = sampling_timesteps(10)
    both = SAMPLERS[name](DATA.denoise, x, SCHEDULE, timesteps, noise=noise_for(len(x)), hook=inject)
    alone = SAMPLERS[name](DATA.denoise, X, SCHEDULE, timesteps, noise=noise_for(6))
    torch.testing.assert_close(both[20_000:], alone, rtol=0, atol=1e-12)
    assert all(found == pytest.approx(expected, rel=0.05) for found, expected in spreads) and len(spreads) == 10
    if END[name] == -1:
        assert torch.equal(both[:20_000], known)
    else:
        assert both[:20_000].mean().item() == pytest.approx(-1.5 * level(0) ** 0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["plms", "dpm_solver"])
def test_multistep_history_stays_valid_with_a_hook(name):
    """A hook that puts x back on the exact flow: what the history then holds is exact, and so is nearly the result."""
    z, timesteps = X / 2, sampling_timesteps(20)
    start, errors = DATA.flow(z, timesteps[0].item()), []

    def restore(x, t):
        errors.append((x - DATA.flow(z, t)).abs().max().item())
        return DATA.flow(z, t)

    plain = run(name, timesteps, x=start)
    assert torch.equal(run(name, timesteps, x=start, hook=lambda x, t: x), plain)
    run(name, timesteps, x=start, hook=restore)
    assert max(errors) < 0.06 and max(errors[:-3]) < 0.005  # of a single step; plain first-order steps miss by 0.02


@pytest.mark.parametrize("name", ALL)
def test_nothing_reads_a_value_of_the_sample(name):
    """On the meta device any `.item()`, comparison or copy to the CPU would raise: on a GPU it would stall the loop."""
    x = torch.empty(2, 4, 8, 8, device="meta")
    t_seen = []

    def denoise(x, t):
        t_seen.append(t)
        return x * 0.1

    noise = lambda *shape: torch.zeros(2, *shape)  # noqa: E731
    knobs = {"eta": 1.0} if name == "ddim" else {}
    result = SAMPLERS[name](denoise, x, SCHEDULE, sampling_timesteps(8), noise=noise, hook=lambda x, t: x, **knobs)
    assert result.device.type == "meta" and result.shape == x.shape
    assert all(t.device.type == "meta" for t in t_seen)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype_of_x(name, dtype):
    x = torch.ones(2, 3, dtype=dtype)
    assert run(name, sampling_timesteps(6), x=x, denoise=lambda x, t: x * 0.5).dtype == dtype


@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64(name):
    x32, x64 = (
        run(name, sampling_timesteps(20), x=X.to(dtype), denoise=lambda x, t: x.tanh())
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(x32.double(), x64, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_graph_is_kept(name):
    weight = torch.ones(1, requires_grad=True)
    assert not run(name, [500, 1], denoise=lambda x, t: x * weight).requires_grad


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("timesteps", [[1000, 1], [1, 500], [5, 5], [3, -1]])
def test_other_timesteps_are_refused(name, timesteps):
    with refused("timesteps", str(timesteps)):
        run(name, timesteps)
