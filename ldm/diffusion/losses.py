"""What a network is asked to predict, and how much each noise level counts."""

from torch import Tensor

from ldm.diffusion.process import velocity
from ldm.utils.errors import UserError

PREDICTIONS = ("eps", "v")


def check_prediction(prediction: str) -> str:
    if prediction not in PREDICTIONS:
        raise UserError(f"prediction {prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    return prediction


def diffusion_target(prediction: str, x0: Tensor, noise: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """The regression target for `q_sample(x0, noise, alpha_cumprod)`: the noise itself, or v."""
    return noise if check_prediction(prediction) == "eps" else velocity(x0, noise, alpha_cumprod)


def min_snr_weight(alpha_cumprod: Tensor, gamma: float, prediction: str) -> Tensor:
    """Min-SNR-gamma loss weights (Hang et al., 2303.09556, section 3.4), the shape of `alpha_cumprod`.

    With SNR = a / (1 - a) every prediction is weighed by min(SNR, gamma) on x0: a squared error in eps is that in x0
    times SNR, one in v times SNR + 1.
    """
    snr = alpha_cumprod / (1 - alpha_cumprod)
    return snr.clamp(max=gamma) / (snr if check_prediction(prediction) == "eps" else snr + 1)
