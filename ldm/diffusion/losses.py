"""The target that a network regresses, and the weight of each noise level in the loss."""

from torch import Tensor

from ldm.diffusion.process import velocity
from ldm.utils.errors import UserError

PREDICTIONS = ("eps", "v")


def check_prediction(prediction: str) -> str:
    """Return the name of a kind of prediction.

    Raises:
        UserError: there is no such kind.
    """
    if prediction not in PREDICTIONS:
        raise UserError(f"prediction {prediction!r}: expected one of {', '.join(PREDICTIONS)}")
    return prediction


def diffusion_target(prediction: str, x0: Tensor, noise: Tensor, alpha_cumprod: Tensor) -> Tensor:
    """Return the regression target for `q_sample(x0, noise, alpha_cumprod)`: the noise itself, or v."""
    return noise if check_prediction(prediction) == "eps" else velocity(x0, noise, alpha_cumprod)


def min_snr_weight(alpha_cumprod: Tensor, gamma: float, prediction: str) -> Tensor:
    """Return Min-SNR-gamma loss weights (Hang et al., 2303.09556, section 3.4), the shape of `alpha_cumprod`.

    With SNR = a / (1 - a) every kind of prediction has the weight min(SNR, gamma) on x0: a squared error in eps is that
    in x0 times SNR, one in v times SNR + 1.
    """
    snr = alpha_cumprod / (1 - alpha_cumprod)
    return snr.clamp(max=gamma) / (snr if check_prediction(prediction) == "eps" else snr + 1)
