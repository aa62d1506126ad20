import pytest
import torch
from torch import nn

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.process import q_sample, velocity
from ldm.diffusion.schedule import Schedule
from tests.refusals import refused

SCHEDULE = Schedule.scaled_linear()


class Recorder:
    """A network that answers with zeros, or with a fixed output, and remembers what it was shown."""

    def __init__(self, output=None):
        self.output, self.calls = output, []

    def __call__(self, x, t, context):
        self.calls.append((x, t, context))
        return torch.zeros_like(x[:, :4]) if self.output is None else self.output


def test_arguments_reach_the_network():
    network = Recorder()
    x, t, context = torch.randn(2, 4, 3, 3), torch.tensor([5, 7]), torch.randn(2, 1, 8)
    eps = Denoiser(network, SCHEDULE)(x, t, context)
    assert eps.shape == x.shape
    assert all(seen is given for seen, given in zip(network.calls[0], (x, t, context), strict=True))


def test_concat_follows_the_latent_and_is_repeated_for_guidance_once():
    network, concat = Recorder(), torch.randn(2, 5, 3, 3)
    denoise = Denoiser(network, SCHEDULE, concat=concat)
    x, t = torch.randn(4, 4, 3, 3), torch.tensor([1, 1, 1, 1])
    denoise(x, t)
    seen = network.calls[0][0]
    assert seen.shape == (4, 9, 3, 3)
    assert torch.equal(seen[:, :4], x)
    assert torch.equal(seen[:2, 4:], concat) and torch.equal(seen[2:, 4:], concat)
    assert denoise._repeat(concat, 4) is denoise._repeat(concat, 4)
    with refused(3, 2, error=ValueError):
        denoise(x[:3], t[:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_v_prediction_becomes_eps(dtype):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=dtype)
    t = torch.tensor([0, 500, 999])
    level = SCHEDULE.alphas_cumprod[t].to(dtype).view(3, 1, 1, 1)
    denoise = Denoiser(Recorder(velocity(x0, noise, level)), SCHEDULE, prediction="v")
    for _ in range(2):  # the second call uses the cached table
        eps = denoise(q_sample(x0, noise, level), t)
        assert eps.dtype == dtype
        torch.testing.assert_close(eps, noise)


def test_the_sample_keeps_its_precision_under_autocast():
    conv = nn.Conv2d(4, 4, 1)
    network = Recorder()

    def forward(x, t, context):
        network.output = conv(x)
        return network(x, t, context)

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        eps = Denoiser(forward, SCHEDULE)(torch.randn(1, 4, 2, 2), torch.tensor([3]))
    assert network.output.dtype == torch.bfloat16 and eps.dtype == torch.float32


def test_unknown_prediction_is_refused_at_once():
    with refused("prediction", "epsilon"):
        Denoiser(Recorder(), SCHEDULE, prediction="epsilon")


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_the_clean_sample_that_the_noise_stands_for_stays_in_range(prediction):
    draw = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 3, 3, 4, 4, generator=draw, dtype=torch.float64)
    t = torch.tensor([0, 400, 999])
    level = SCHEDULE.alphas_cumprod[t].view(3, 1, 1, 1)
    x = q_sample(x0, noise, level)
    output = noise if prediction == "eps" else velocity(x0, noise, level)
    eps = Denoiser(Recorder(output), SCHEDULE, prediction, clip_x0=True)(x, t)
    torch.testing.assert_close((x - (1 - level).sqrt() * eps) / level.sqrt(), x0.clamp(-1, 1))
    inside = x0.abs() < 1
    torch.testing.assert_close(eps[inside], noise[inside])
    assert (eps[~inside] - noise[~inside]).abs().min() > 0


@pytest.mark.parametrize("clip", [False, True])
def test_a_predicted_variance_is_returned_unchanged_if_asked_for(clip):
    x, output, t = torch.randn(2, 4, 3, 3), torch.randn(2, 8, 3, 3), torch.tensor([1, 7])
    plain = Denoiser(Recorder(output), SCHEDULE, clip_x0=clip)(x, t)
    kept = Denoiser(Recorder(output), SCHEDULE, clip_x0=clip, keep_variance=True)(x, t)
    assert torch.equal(kept, torch.cat([plain, output[:, 4:]], dim=1)) and plain.shape == x.shape
    assert torch.equal(plain, output[:, :4]) or clip
    single = Denoiser(Recorder(output[:, :4]), SCHEDULE, keep_variance=True)(x, t)
    assert torch.equal(single, output[:, :4])  # there is none to keep
