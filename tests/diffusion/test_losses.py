import pytest
import torch

from ldm.diffusion.losses import diffusion_target, min_snr_weight
from ldm.diffusion.process import eps_from_v, q_sample, x0_from_eps, x0_from_v
from tests.refusals import refused

LEVELS = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.005], dtype=torch.float64)


def test_targets():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    level = LEVELS[:, None]
    assert diffusion_target("eps", x0, noise, level) is noise
    v = diffusion_target("v", x0, noise, level)
    torch.testing.assert_close(eps_from_v(q_sample(x0, noise, level), v, level), noise)


def test_min_snr_weights_are_the_published_ones():
    snr = LEVELS / (1 - LEVELS)
    capped = torch.minimum(snr, torch.tensor(5.0))
    torch.testing.assert_close(min_snr_weight(LEVELS, 5.0, "eps"), capped / snr)
    torch.testing.assert_close(min_snr_weight(LEVELS, 5.0, "v"), capped / (snr + 1))
    assert min_snr_weight(LEVELS, 5.0, "eps")[2:].tolist() == [1.0, 1.0, 1.0]  # SNR below gamma: the plain loss


@pytest.mark.parametrize("prediction, to_x0", [("eps", x0_from_eps), ("v", x0_from_v)])
def test_min_snr_weighs_the_error_of_x0_alike_in_every_prediction(prediction, to_x0):
    x, error = torch.tensor(1.0).double(), 0.01
    x0_error = to_x0(x, torch.full_like(LEVELS, error), LEVELS) - to_x0(x, torch.zeros_like(LEVELS), LEVELS)
    snr = LEVELS / (1 - LEVELS)
    torch.testing.assert_close(
        min_snr_weight(LEVELS, 5.0, prediction) * error**2, snr.clamp(max=5.0) * x0_error.square(), rtol=1e-9, atol=0
    )


def test_unknown_prediction_is_named():
    with refused("prediction", "x0", "eps", "v"):
        diffusion_target("x0", LEVELS, LEVELS, LEVELS)
    with refused("prediction", "x0", "eps", "v"):
        min_snr_weight(LEVELS, 5.0, "x0")
