import pytest
import torch

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance, classifier_gradient, classifier_guidance
from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.samplers import ddim, ddpm
from tests.refusals import refused
from tests.samplers.gaussian import SCHEDULE, Gaussian, Normal


class Network:
    """eps = sum of the context, so that conditional and unconditional rows are told apart; counts rows."""

    def __init__(self):
        self.rows, self.contexts, self.times, self.inputs = [], [], [], []

    def __call__(self, x, t, context):
        self.rows.append(len(x))
        self.contexts.append(context)
        self.times.append(t)
        self.inputs.append(x)
        return context.sum((1, 2))[:, None, None, None] + 0 * x[:, :4]


X, T = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 7])
COND, UNCOND = torch.full((2, 1, 1), 3.0), torch.full((2, 1, 1), 1.0)


@pytest.mark.parametrize("scale, expected", [(5.0, 11.0), (0.0, 1.0), (0.5, 2.0), (-1.0, -1.0)])
def test_extrapolates_from_the_unconditional_prediction_in_one_batch(scale, expected):
    network = Network()
    eps = classifier_free_guidance(network, COND, UNCOND, scale)(X, T)
    torch.testing.assert_close(eps, torch.full_like(X, expected))
    assert network.rows == [4]
    assert network.contexts[0].flatten().tolist() == [1.0, 1.0, 3.0, 3.0]  # unconditional rows first
    assert network.times[0].tolist() == [7, 7, 7, 7]
    assert torch.equal(network.inputs[0], torch.cat([X, X]))


def test_scale_one_runs_the_conditional_pass_alone():
    network = Network()
    eps = classifier_free_guidance(network, COND, None, 1)(X, T)
    assert network.rows == [2] and network.contexts[0] is COND
    torch.testing.assert_close(eps, torch.full_like(X, 3.0))


def test_guidance_needs_an_unconditional_context():
    with refused("scale", 2, error=ValueError):
        classifier_free_guidance(Network(), COND, None, 2)


def test_the_inpainting_channels_of_a_doubled_batch():
    network, concat = Network(), torch.randn(2, 5, 3, 3)
    denoise = Denoiser(network, Schedule.scaled_linear(), concat=concat)
    classifier_free_guidance(denoise, COND, UNCOND, 5.0)(X, T)
    assert torch.equal(network.inputs[0], torch.cat([torch.cat([X, concat], 1)] * 2))


KINDS = Gaussian(-0.8, 0.3), Gaussian(0.6, 0.3)
"""Data of two classes, equally frequent: what a mixture's noise and classifier are is known in closed form."""


def logits(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """log p(y | x_t) but for a constant, (B, 2)."""
    means, stds = zip(*(kind.marginal(t[0].item()) for kind in KINDS), strict=True)
    return -((x - torch.tensor(means)) ** 2) / (2 * stds[0] ** 2)


def mixed(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[eps | x_t] of both classes together."""
    share = logits(x, t).softmax(-1)
    return sum(share[:, k : k + 1] * kind.denoise(x, t) for k, kind in enumerate(KINDS))


ROWS = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None]
Y = torch.tensor([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize("t", [1, 300, 700, 999])
def test_the_gradient_is_that_of_the_log_probability_of_each_rows_class(t):
    times = torch.full((6,), t)
    (low, std), (high, _) = (kind.marginal(t) for kind in KINDS)
    other = logits(ROWS, times).softmax(-1).gather(1, 1 - Y[:, None])
    expected = other * (high - low) / std**2 * (2 * Y[:, None] - 1)
    with torch.no_grad():
        found = classifier_gradient(logits, Y, 2.5)(ROWS, times)
    torch.testing.assert_close(found, 2.5 * expected)
    assert not found.requires_grad and not ROWS.requires_grad


@pytest.mark.parametrize("t", [1, 300, 999])
def test_guided_by_the_true_classifier_the_noise_is_that_of_the_class(t):
    """Bayes: at scale 1 the score of x given y is that of x plus the gradient of log p(y | x)."""
    times = torch.full((6,), t)
    guided = classifier_guidance(mixed, classifier_gradient(logits, Y, 1.0), SCHEDULE)(ROWS, times)
    expected = torch.stack([KINDS[y].denoise(ROWS[k : k + 1], times[:1])[0] for k, y in enumerate(Y.tolist())])
    torch.testing.assert_close(guided, expected)


def test_ddim_guided_by_the_true_classifier_samples_the_class():
    guided = classifier_guidance(mixed, classifier_gradient(logits, torch.ones_like(Y), 1.0), SCHEDULE)
    found, expected = (ddim(denoise, ROWS, SCHEDULE, sampling_timesteps(20)) for denoise in (guided, KINDS[1].denoise))
    torch.testing.assert_close(found, expected)


def test_ddpm_guided_by_the_true_classifier_samples_the_class():
    B, steps = 2000, sampling_timesteps(100)
    x = Normal(B, seed=1)(1)
    gradient = classifier_gradient(logits, torch.zeros(B, dtype=torch.int64), 1.0)
    x = ddpm(mixed, x, SCHEDULE, steps, gradient=gradient, noise=Normal(B))
    assert x.mean().item() == pytest.approx(-0.8, abs=0.03) and x.std().item() == pytest.approx(0.3, rel=0.1)


def test_classifiers_wait_for_nothing_and_gather_no_gradients():
    """On the meta device, where reading a value raises; the network's own weights have no part in it."""
    network = torch.nn.Linear(3, 2).to("meta")
    x, t = torch.empty(4, 3, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    gradient = classifier_gradient(lambda x, t: network(x), torch.zeros(4, dtype=torch.int64, device="meta"), 3.0)
    with torch.no_grad():
        assert classifier_guidance(lambda x, t: x, gradient, SCHEDULE)(x, t).shape == x.shape
    assert all(p.grad is None for p in network.parameters())
