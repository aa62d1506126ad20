import pytest
import torch

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance
from ldm.diffusion.schedule import Schedule


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
    with pytest.raises(ValueError, match="scale 2"):
        classifier_free_guidance(Network(), COND, None, 2)


def test_the_inpainting_channels_of_a_doubled_batch():
    network, concat = Network(), torch.randn(2, 5, 3, 3)
    denoise = Denoiser(network, Schedule.scaled_linear(), concat=concat)
    classifier_free_guidance(denoise, COND, UNCOND, 5.0)(X, T)
    assert torch.equal(network.inputs[0], torch.cat([torch.cat([X, concat], 1)] * 2))
