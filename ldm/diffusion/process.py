"""The Gaussian process that links data, noise and noisy samples, and the equivalent forms of a prediction.

`x = sqrt(a) x0 + sqrt(1 - a) eps` with `a = alphas_cumprod[t]`, a float or a tensor that broadcasts against x.
"""

from torch import Tensor


def q_sample(x0: Tensor, noise: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return x0 noised to the level `alpha_cumprod` (Ho et al., 2006.11239, equation 4)."""
    return alpha_cumprod**0.5 * x0 + (1 - alpha_cumprod) ** 0.5 * noise


def x0_from_eps(x: Tensor, eps: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return the clean sample that a noise prediction implies."""
    return (x - (1 - alpha_cumprod) ** 0.5 * eps) / alpha_cumprod**0.5


def eps_from_x0(x: Tensor, x0: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return the noise that a predicted clean sample implies."""
    return (x - alpha_cumprod**0.5 * x0) / (1 - alpha_cumprod) ** 0.5


def velocity(x0: Tensor, noise: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return v, the target of v-prediction (Salimans and Ho, 2202.00512, section 4)."""
    return alpha_cumprod**0.5 * noise - (1 - alpha_cumprod) ** 0.5 * x0


def eps_from_v(x: Tensor, v: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return the noise that a v-prediction implies."""
    return alpha_cumprod**0.5 * v + (1 - alpha_cumprod) ** 0.5 * x


def x0_from_v(x: Tensor, v: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return the clean sample that a v-prediction implies."""
    return alpha_cumprod**0.5 * x - (1 - alpha_cumprod) ** 0.5 * v


def model_x0(prediction: str, x: Tensor, output: Tensor, alpha_cumprod: float | Tensor) -> Tensor:
    """Return the clean sample that a network's output, `eps` or `v`, implies."""
    return (x0_from_eps if prediction == "eps" else x0_from_v)(x, output, alpha_cumprod)


def posterior(
    x0: Tensor, x: Tensor, alpha_cumprod: float | Tensor, alpha_cumprod_prev: float | Tensor
) -> tuple[Tensor, float | Tensor]:
    """Return mean (like x) and variance of `q(x_prev | x_t, x0)` (2006.11239, equations 6 and 7).

    "prev" may be any less noisy level, not only t - 1; at `alpha_cumprod_prev = 1` the mean is x0 and the variance 0.
    """
    alpha = alpha_cumprod / alpha_cumprod_prev
    beta = 1 - alpha
    mean = (
        alpha_cumprod_prev**0.5 * beta / (1 - alpha_cumprod) * x0
        + alpha**0.5 * (1 - alpha_cumprod_prev) / (1 - alpha_cumprod) * x
    )
    return mean, beta * (1 - alpha_cumprod_prev) / (1 - alpha_cumprod)
